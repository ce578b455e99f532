//go:build !unix

package e2e

import "net"

// wasReset is for systems that tell every reader of a reset.
func wasReset(*net.TCPConn) bool { return false }
