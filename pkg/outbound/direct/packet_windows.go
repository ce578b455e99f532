package direct

import "vmess-local/pkg/host/errno"

// readable lets the read wait: sockets cannot be peeked at here.
func readable(uintptr) bool { return true }

// truncated reports whether an error means a datagram that was read in part.
func truncated(err error) bool { return errno.IsMessageSize(err) }
