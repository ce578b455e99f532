package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	delayChunk = 16 * kib
	delayQueue = 256 // pieces on their way in one direction, 4 MiB
)

// A distance makes a server seem far away: it forwards connections, delays
// each direction by oneWay and charges a round trip for connecting.
type distance struct {
	oneWay  time.Duration
	backend string

	listener net.Listener
	open     connSet
	running  sync.WaitGroup
}

// newDistance puts a distance in front of backend. It must be closed.
func newDistance(backend string, oneWay time.Duration) (*distance, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	d := &distance{oneWay: oneWay, backend: backend, listener: ln}
	d.running.Go(func() { serve(ln, &d.open, &d.running, d.forward) })
	return d, nil
}

// addr is where the far server seems to listen.
func (d *distance) addr() string { return d.listener.Addr().String() }

// Close ends all connections and waits for them.
func (d *distance) Close() error {
	err := d.listener.Close()
	d.open.closeAll()
	d.running.Wait()
	return err
}

// forward carries one connection. What the dialer sends at once waits for the
// round trip in which TCP would have connected; the server side would know of
// the connection half a round trip later still.
func (d *distance) forward(near *net.TCPConn) {
	far, err := dialTCP(d.backend)
	if err != nil {
		_ = near.SetLinger(0)
		return
	}
	defer far.Close()
	if !d.open.add(far) {
		return
	}
	defer d.open.remove(far)
	now := time.Now()
	var both sync.WaitGroup
	both.Go(func() { pass(far, near, d.oneWay, now.Add(2*d.oneWay)) })
	both.Go(func() { pass(near, far, d.oneWay, now.Add(3*d.oneWay)) })
	both.Wait()
}

// pass carries one direction and its end.
func pass(dst, src *net.TCPConn, delay time.Duration, notBefore time.Time) {
	if err := delayed(dst, src, delay, notBefore); err != nil {
		_ = dst.SetLinger(0)
		_ = dst.Close()
		_ = src.SetLinger(0)
		_ = src.Close()
		return
	}
	_ = dst.CloseWrite()
}

// A flight is a piece of data on its way; one without data is the end.
type flight struct {
	data    []byte
	arrives time.Time
}

// delayed copies src to dst until its end. What was read at t, or before
// notBefore, is written at t, or notBefore, plus delay: the order stays, and
// as much as there is travels at the same time. The end of src takes as long
// as its data. A failed write closes src; otherwise closing is the caller's.
func delayed(dst io.Writer, src io.ReadCloser, delay time.Duration, notBefore time.Time) error {
	line := make(chan flight, delayQueue)
	arrived := make(chan error, 1)
	go func() { arrived <- land(dst, line, src.Close) }()
	err := launch(line, src, delay, notBefore)
	close(line)
	return errors.Join(err, <-arrived)
}

// launch reads src into a line.
func launch(line chan<- flight, src io.Reader, delay time.Duration, notBefore time.Time) error {
	for {
		buf := make([]byte, delayChunk)
		n, err := src.Read(buf)
		sent := time.Now()
		if sent.Before(notBefore) {
			sent = notBefore
		}
		if n > 0 {
			line <- flight{buf[:n], sent.Add(delay)}
		}
		if err == io.EOF {
			line <- flight{nil, sent.Add(delay)}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// land writes what comes out of a line when it is time. A failed write calls
// stop, and the rest of the line is dropped.
func land(dst io.Writer, line <-chan flight, stop func() error) error {
	var failed error
	for f := range line {
		if failed != nil {
			continue
		}
		time.Sleep(time.Until(f.arrives))
		if len(f.data) == 0 {
			continue
		}
		if _, failed = dst.Write(f.data); failed != nil {
			_ = stop()
		}
	}
	return failed
}
