package direct

import "vmess-local/pkg/errno"

// readable lets the read wait: sockets cannot be peeked at here.
func readable(uintptr) bool { return true }

// cut reports whether an error means a datagram that was read in part.
func cut(err error) bool { return errno.IsMessageSize(err) }
