package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// Pieces are what origins and load read and write at once: large, so that
// they take little of the machine.
const piece = 256 * kib

// origins are the destinations, all inside this process.
type origins struct {
	source string // answers 8 bytes, a length, with that many bytes, again and again
	sink   string // answers a length above 1 and as many bytes, or 1, with one byte, again and again
	banner string // speaks first, then as source
	echo   string // sends datagrams back, over UDP

	listeners []io.Closer
	open      connSet
	running   sync.WaitGroup
	data      []byte // one piece of noise
}

// bannerText is how the origin that speaks first begins.
const bannerText = "220 ready\r\n"

// newOrigins starts the origins. They must be closed.
func newOrigins() (*origins, error) {
	o := &origins{data: make([]byte, piece)}
	_, _ = rand.Read(o.data)
	for addr, handle := range map[*string]func(*net.TCPConn) error{
		&o.source: o.serveSource, &o.sink: o.serveSink, &o.banner: o.serveBanner,
	} {
		ln, err := listen()
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		*addr = ln.Addr().String()
		o.listeners = append(o.listeners, ln)
		o.running.Go(func() {
			serve(ln, &o.open, &o.running, func(c *net.TCPConn) { _ = handle(c) }) // the load sees what is missing
		})
	}
	if err := o.listenEcho(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *origins) listenEcho() error {
	socket, err := newEcho()
	if err != nil {
		return err
	}
	o.echo = socket.LocalAddr().String()
	o.listeners = append(o.listeners, socket)
	o.running.Go(func() { serveEcho(socket) })
	return nil
}

// Close ends all connections and waits for them.
func (o *origins) Close() error {
	for _, ln := range o.listeners {
		_ = ln.Close()
	}
	o.open.closeAll()
	o.running.Wait()
	return nil
}

func (o *origins) serveSource(c *net.TCPConn) error {
	for {
		n, err := readLength(c)
		if err != nil {
			return err
		}
		if err := writeMany(c, o.data, n); err != nil {
			return err
		}
	}
}

// serveSink takes the length 1 for a question, which nothing follows and which
// a source would answer alike.
func (o *origins) serveSink(c *net.TCPConn) error {
	n, err := readLength(c)
	for ; err == nil; n, err = readLength(c) {
		if n > 1 {
			err = readMany(c, n)
		}
		if err == nil {
			_, err = c.Write([]byte{1})
		}
		if err != nil {
			return err
		}
	}
	return err
}

func (o *origins) serveBanner(c *net.TCPConn) error {
	if _, err := io.WriteString(c, bannerText); err != nil {
		return err
	}
	return o.serveSource(c)
}

func readLength(r io.Reader) (int64, error) {
	var b [8]byte
	err := readFull(r, b[:])
	return int64(binary.BigEndian.Uint64(b[:])), err
}

func writeLength(w io.Writer, n int64) error {
	_, err := w.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return err
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}

// readMany reads n bytes and drops them.
func readMany(r io.Reader, n int64) error {
	buf := make([]byte, min(n, piece))
	for n > 0 {
		got, err := r.Read(buf[:min(n, piece)])
		n -= int64(got)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// writeMany writes n bytes of data, over and over.
func writeMany(w io.Writer, data []byte, n int64) error {
	for n > 0 {
		put, err := w.Write(data[:min(n, int64(len(data)))])
		n -= int64(put)
		if err != nil {
			return err
		}
	}
	return nil
}
