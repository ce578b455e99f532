package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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
	if err := socksHandshake(c, target); err != nil {
		return nil, errors.Join(fmt.Errorf("SOCKS5 by %s: %w", proxy, err), c.Close())
	}
	return c, nil
}

// socksHandshake is the client's part of RFC 1928 without authentication.
func socksHandshake(c net.Conn, target string) error {
	request, err := socksRequest(target)
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var reply [10]byte
	if err := readFull(c, reply[:2]); err != nil {
		return err
	}
	if reply[1] != 0 {
		return fmt.Errorf("method %d", reply[1])
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	if err := readFull(c, reply[:]); err != nil {
		return err
	}
	if reply[1] != 0 || reply[3] != 1 {
		return fmt.Errorf("reply %d with address type %d", reply[1], reply[3])
	}
	return nil
}

// socksRequest is the CONNECT request for IPv4:PORT.
func socksRequest(target string) ([]byte, error) {
	addr, err := net.ResolveTCPAddr("tcp4", target)
	if err != nil {
		return nil, err
	}
	request := append([]byte{5, 1, 0, 1}, addr.IP.To4()...)
	return append(request, byte(addr.Port>>8), byte(addr.Port)), nil
}
