package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// ioPatience bounds everything that is done with one connection.
const ioPatience = 3 * time.Minute

// listen listens on a free loopback port. Its connections, as those of
// dialTCP, are the load's own and get [calm].
func listen() (net.Listener, error) {
	lc := net.ListenConfig{Control: calm}
	return lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// dialTCP connects within 10 s. The connection has a deadline.
func dialTCP(addr string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, Control: calm}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(ioPatience)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// serve accepts until ln is closed, and handles each connection, which it
// closes, in a goroutine of running.
func serve(ln net.Listener, open *connSet, running *sync.WaitGroup, handle func(*net.TCPConn)) {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no file left: some will come back
			continue
		}
		conn := c.(*net.TCPConn)
		if !open.add(conn) {
			continue
		}
		running.Go(func() {
			defer open.remove(conn)
			handle(conn)
		})
	}
}

// A connSet is what is open and can be closed all at once. Its zero value is
// ready for use.
type connSet struct {
	mu     sync.Mutex
	conns  map[*net.TCPConn]struct{}
	closed bool
}

// add takes a connection in; a set that was closed closes it and says no.
func (s *connSet) add(c *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	if s.conns == nil {
		s.conns = make(map[*net.TCPConn]struct{})
	}
	s.conns[c] = struct{}{}
	return true
}

// remove closes a connection and forgets it.
func (s *connSet) remove(c *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	_ = c.Close()
}

// closeAll closes what is open, and all that is added later.
func (s *connSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
}

// halfClose ends the way out of all that are open.
func (s *connSet) halfClose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.CloseWrite() // it may have ended
	}
}

// waitEmpty waits until none is open.
func (s *connSet) waitEmpty(ctx context.Context) error {
	for {
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%d connections are still open: %w", n, err)
		}
	}
}

// freePort returns a loopback address that nobody listens on, for programs
// that cannot pick one. It is below the ports that systems take for outgoing
// connections, of which there are thousands here: one of those could be gone
// by the time the program listens.
func freePort() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+rand.IntN(20000)))
		if ln, err := net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", errors.New("no free port")
}

// socksConnect asks the SOCKS5 proxy at proxy for a connection to target,
// which is IPv4:PORT. It ends with the proxy's yes.
func socksConnect(proxy, target string) (*net.TCPConn, error) {
	c, err := dialTCP(proxy)
	if err != nil {
		return nil, err
	}
	if _, err := socksHandshake(c, socksTCP, target); err != nil {
		return nil, errors.Join(fmt.Errorf("SOCKS5 by %s: %w", proxy, err), c.Close())
	}
	return c, nil
}

// socksAssociate asks the SOCKS5 proxy at proxy to relay datagrams and returns
// where to; it does so as long as control is open.
func socksAssociate(proxy string) (control *net.TCPConn, relay netip.AddrPort, err error) {
	if control, err = dialTCP(proxy); err != nil {
		return nil, relay, err
	}
	if relay, err = socksHandshake(control, socksUDP, "0.0.0.0:0"); err != nil {
		return nil, relay, errors.Join(fmt.Errorf("SOCKS5 UDP by %s: %w", proxy, err), control.Close())
	}
	return control, relay, nil
}

// The commands of RFC 1928 section 4.
const (
	socksTCP = 1 // CONNECT
	socksUDP = 3 // UDP ASSOCIATE
)

// socksHandshake is the client's part of RFC 1928 without authentication. It
// returns the address in the reply.
func socksHandshake(c net.Conn, command byte, target string) (bound netip.AddrPort, err error) {
	request, err := socksRequest(command, target)
	if err != nil {
		return bound, err
	}
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return bound, err
	}
	var reply [10]byte
	if err := readFull(c, reply[:2]); err != nil {
		return bound, err
	}
	if reply[1] != 0 {
		return bound, fmt.Errorf("method %d", reply[1])
	}
	if _, err := c.Write(request); err != nil {
		return bound, err
	}
	if err := readFull(c, reply[:]); err != nil {
		return bound, err
	}
	if reply[1] != 0 || reply[3] != 1 {
		return bound, fmt.Errorf("reply %d with address type %d", reply[1], reply[3])
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[4:8])), binary.BigEndian.Uint16(reply[8:])), nil
}

// socksRequest is the request of a command for IPv4:PORT.
func socksRequest(command byte, target string) ([]byte, error) {
	to, err := netip.ParseAddrPort(target)
	if err != nil {
		return nil, err
	}
	request := append([]byte{5, command, 0, 1}, to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(request, to.Port()), nil
}
