//go:build !linux

package udp

import "net/netip"

type sending struct{}

// receive takes datagrams of the client until the socket is closed or fails.
func (a *association) receive() { a.receiveBursts() }

// send sends a datagram from the socket. It may be called by many goroutines.
func (a *association) send(p []byte, to netip.AddrPort) error {
	_, err := a.socket.WriteToUDPAddrPort(p, to)
	return err
}
