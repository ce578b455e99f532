package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/net/proxy"
)

// dialVia connects as an application does: to target (HOST:PORT, a name stays
// a name) through the SOCKS5 proxy at proxyAddr. The connection has a
// deadline.
func dialVia(proxyAddr, target string) (*net.TCPConn, error) {
	d, err := proxy.SOCKS5("tcp", proxyAddr, nil, boundedDialer{})
	if err != nil {
		return nil, err
	}
	c, err := d.Dial("tcp", target)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// mustDialVia is dialVia for the test's own goroutine. The connection is
// closed with the test.
func mustDialVia(t testing.TB, proxyAddr, target string) *net.TCPConn {
	t.Helper()
	c, err := dialVia(proxyAddr, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// boundedDialer dials connections that do not outlast ioPatience.
type boundedDialer struct{}

// Dial implements proxy.Dialer.
func (boundedDialer) Dial(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(ioPatience))
	}
	return c, err
}

// byName turns 127.0.0.1:PORT into localhost:PORT.
func byName(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort("localhost", port)
}

// exchange sends up bytes to a bulkOrigin through a SOCKS5 proxy while it gets
// down bytes from it, and fails the test unless both arrived as they were, by
// SHA-256.
func exchange(t testing.TB, proxyAddr, origin string, up, down int64) {
	t.Helper()
	if err := tryExchange(proxyAddr, origin, up, down); err != nil {
		t.Errorf("%d bytes up and %d down: %v", up, down, err)
	}
}

// tryExchange is exchange for any goroutine.
func tryExchange(proxyAddr, origin string, up, down int64) error {
	c, err := dialVia(proxyAddr, origin)
	if err != nil {
		return err
	}
	defer c.Close()
	order := bulkOrder{up, down, rand.Uint64() &^ upSeed}
	written := make(chan error, 1)
	sent := sha256.New()
	go func() {
		written <- order.upload(c, sent)
	}()
	got, want := sha256.New(), sha256.New()
	_, _ = io.Copy(want, pattern(order.Seed, down))
	n, err := io.CopyN(got, c, down)
	if err != nil {
		_ = c.Close()
		return errors.Join(fmt.Errorf("read, after %d bytes: %w", n, err), <-written)
	}
	if err := <-written; err != nil {
		return fmt.Errorf("write: %w", err)
	}
	var sum [sha256.Size]byte
	if _, err := io.ReadFull(c, sum[:]); err != nil {
		return fmt.Errorf("read the sum: %w", err)
	}
	switch {
	case !bytes.Equal(got.Sum(nil), want.Sum(nil)):
		return errors.New("what came down is not what was sent")
	case !bytes.Equal(sent.Sum(nil), sum[:]):
		return errors.New("what came up is not what was sent")
	}
	return readEnd(c)
}

// upload writes the order and the bytes of the way up, which it sums in sum.
// Few bytes go in one write with the order; many begin a write of their own,
// so that the sizes of an exchange are the sizes of writes.
func (o bulkOrder) upload(w io.Writer, sum io.Writer) error {
	head, err := binary.Append(nil, binary.BigEndian, o)
	if err != nil {
		return err
	}
	data := io.TeeReader(pattern(o.Seed|upSeed, o.Up), sum)
	if o.Up < 1<<10 {
		few, err := io.ReadAll(data)
		if err != nil {
			return err
		}
		head = append(head, few...)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, data, make([]byte, 64<<10))
	return err
}

// readEnd reads the orderly end of a connection.
func readEnd(c net.Conn) error {
	rest, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("read the end: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes too many", len(rest))
	}
	return nil
}
