package main

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A shaky is a SOCKS5 proxy for one association, which relays every datagram
// but those that lose says, and answers each of the others twice.
type shaky struct {
	listener net.Listener
	relay    *net.UDPConn
	lose     func(seen int) bool
}

func newShaky(t *testing.T, lose func(seen int) bool) *shaky {
	t.Helper()
	ln, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	relay, err := newEcho()
	if err != nil {
		t.Fatal(err)
	}
	s := &shaky{ln, relay, lose}
	var running sync.WaitGroup
	running.Go(s.control)
	running.Go(s.datagrams)
	t.Cleanup(func() {
		_ = ln.Close()
		_ = relay.Close()
		running.Wait()
	})
	return s
}

func (s *shaky) control() {
	c, err := s.listener.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	var asked [13]byte // greeting and request
	if readFull(c, asked[:3]) != nil {
		return
	}
	_, _ = c.Write([]byte{5, 0})
	if readFull(c, asked[3:]) != nil || asked[4] != socksUDP {
		return
	}
	port := s.relay.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{5, 0, 0, 1, 127, 0, 0, 1}, port))
	_, _ = io.Copy(io.Discard, c)
}

func (s *shaky) datagrams() {
	buf := make([]byte, datagramRoom)
	for seen := 0; ; seen++ {
		n, from, err := s.relay.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if s.lose(seen) {
			continue
		}
		for range 2 {
			_, _ = s.relay.WriteToUDPAddrPort(buf[:n], from)
		}
	}
}

func (s *shaky) talk(t *testing.T) *talk {
	t.Helper()
	c, err := newTalk(s.listener.Addr().String(), "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestTalk(t *testing.T) {
	t.Run("passes over answers to what was before, and repeats what was lost", func(t *testing.T) {
		c := newShaky(t, func(seen int) bool { return seen == 2 }).talk(t)
		if err := c.trips(10); err != nil {
			t.Error(err)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		c := newShaky(t, func(int) bool { return true }).talk(t)
		if err := c.trip(); err == nil || !strings.Contains(err.Error(), "no answer to datagram 1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the header is that of RFC 1928", func(t *testing.T) {
		c := newShaky(t, func(int) bool { return false }).talk(t)
		if got, want := string(c.datagram[:c.head]), "\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x09"; got != want {
			t.Errorf("header % x, want % x", got, want)
		}
		if len(c.datagram)-c.head != datagramSize {
			t.Errorf("a payload of %d bytes", len(c.datagram)-c.head)
		}
	})
}

func TestEcho(t *testing.T) {
	o, err := newOrigins()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	c, err := net.Dial("udp4", o.echo)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"a", strings.Repeat("b", datagramSize)} {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, datagramRoom)
		n, err := c.Read(got)
		if err != nil || string(got[:n]) != text {
			t.Errorf("got %q, %v", got[:n], err)
		}
	}
}
