package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/rawsock"
)

// maxBurst is how many datagrams are read before a look at whether the socket
// was closed.
const maxBurst = 256

// receive takes datagrams of the client until the socket is closed or fails.
// It lends a buffer for those that are there, and waits without one.
func (a *association) receive() {
	if a.client.Addr().Zone() != "" {
		a.receiveBursts() // noblock knows no zones
		return
	}
	var count int
	var fault error
	drain := func(fd uintptr) bool {
		count, fault = a.drain(fd)
		return fault != syscall.EAGAIN
	}
	for faults := 0; faults < maxFaults; faults++ {
		if err := a.raw.Read(drain); errors.Is(err, net.ErrClosed) {
			return
		}
		if count > 0 {
			faults = 0
		}
	}
}

// drain takes what there is. The poller tells only of what comes later, so the
// end of a burst is EAGAIN, or the next one begins with another read.
func (a *association) drain(fd uintptr) (count int, err error) {
	b := transport.GetBuffer()
	defer b.Release()
	for ; count < maxBurst; count++ {
		n, from, err := rawsock.ReceiveFrom(fd, b[:])
		if err != nil {
			return count, err
		}
		a.take(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
	return count, nil
}

// A sending is a datagram on its way into the socket.
type sending struct {
	mu  sync.Mutex
	try func(fd uintptr) bool // made once
	p   []byte
	to  netip.AddrPort
	err error
}

// send sends a datagram from the socket. It may be called by many goroutines.
func (a *association) send(p []byte, to netip.AddrPort) error {
	if to.Addr().Zone() != "" {
		_, err := a.socket.WriteToUDPAddrPort(p, to)
		return err
	}
	s := &a.sending
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.try == nil {
		s.try = func(fd uintptr) bool {
			s.err = rawsock.SendTo(fd, s.p, s.to)
			return s.err != syscall.EAGAIN
		}
	}
	s.p, s.to = p, to
	err := a.raw.Write(s.try)
	s.p = nil
	if err == nil && s.err != nil {
		err = os.NewSyscallError("sendto", s.err)
	}
	return err
}
