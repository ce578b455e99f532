//go:build unix

package udp

import (
	"syscall"

	"vmess-local/pkg/transport/rawsock"
)

// waitRead waits without a buffer until there is a datagram. Its error, if it
// had one, is that of the read that follows.
func (a *association) waitRead() { _ = a.raw.Read(readable) }

// readable peeks at the socket: only an empty one makes the poller wait.
func readable(fd uintptr) bool { return rawsock.Peek(fd) != syscall.EAGAIN }
