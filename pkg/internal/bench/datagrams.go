package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	datagramSize = 64   // bytes of a payload
	datagramRoom = 2048 // of what is read at once
	lostAfter    = 250 * time.Millisecond
)

// newEcho opens the UDP socket of an origin that sends back what it gets.
func newEcho() (*net.UDPConn, error) {
	return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

// serveEcho answers until the socket is closed.
func serveEcho(socket *net.UDPConn) {
	buf := make([]byte, datagramRoom)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = socket.WriteToUDPAddrPort(buf[:n], from) // the load sees what is missing
		}
	}
}

// A talk is a SOCKS5 UDP association (RFC 1928 section 7) with an echo, of
// which one datagram is on its way at a time.
type talk struct {
	control  *net.TCPConn
	socket   *net.UDPConn
	datagram []byte // with its header; the payload begins with a number
	head     int    // bytes of the header
	number   uint64
	answer   [datagramRoom]byte
}

// newTalk opens an association by way of a SOCKS5 proxy. It must be closed.
func newTalk(proxy, echo string) (*talk, error) {
	to, err := netip.ParseAddrPort(echo)
	if err != nil {
		return nil, err
	}
	control, relay, err := socksAssociate(proxy)
	if err != nil {
		return nil, err
	}
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		return nil, errors.Join(err, control.Close())
	}
	t := &talk{control: control, socket: socket}
	t.datagram = append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	t.datagram = binary.BigEndian.AppendUint16(t.datagram, to.Port())
	t.head = len(t.datagram)
	t.datagram = append(t.datagram, make([]byte, datagramSize)...)
	return t, nil
}

// Close implements io.Closer.
func (t *talk) Close() error { return errors.Join(t.socket.Close(), t.control.Close()) }

// trips makes n round trips, one after the other.
func (t *talk) trips(n int) error {
	for range n {
		if err := t.trip(); err != nil {
			return err
		}
	}
	return nil
}

// trip makes one round trip; what seems to be lost is sent again.
func (t *talk) trip() (err error) {
	t.number++
	binary.BigEndian.PutUint64(t.datagram[t.head:], t.number)
	for range attempts {
		if err = t.socket.SetDeadline(time.Now().Add(lostAfter)); err != nil {
			return err
		}
		if _, err = t.socket.Write(t.datagram); err != nil {
			return err
		}
		if err = t.listen(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("no answer to datagram %d: %w", t.number, err)
}

// listen waits for the answer, and passes over late ones to what was sent
// twice.
func (t *talk) listen() error {
	for {
		n, err := t.socket.Read(t.answer[:])
		if err != nil {
			return err
		}
		if n == len(t.datagram) && bytes.Equal(t.answer[t.head:n], t.datagram[t.head:]) {
			return nil
		}
	}
}

// talks opens n associations, each of which has made some round trips.
func (o *origins) talks(proxy string, n int) ([]*talk, error) {
	all := make([]*talk, n)
	err := atOnce(n, n, func(i int) (err error) {
		for range attempts { // see [insist]
			if all[i], err = newTalk(proxy, o.echo); err != nil {
				return err
			}
			if err = all[i].trips(warmTrips); err == nil {
				return nil
			}
			_ = all[i].Close()
		}
		return err
	})
	if err != nil {
		hangUp(all)
		return nil, err
	}
	return all, nil
}

// hangUp closes talks.
func hangUp(all []*talk) {
	for _, t := range all {
		if t != nil {
			_ = t.Close() // it may be closed
		}
	}
}

// warmTrips come before what counts.
const warmTrips = 50
