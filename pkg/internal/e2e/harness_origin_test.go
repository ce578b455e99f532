package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Origins are the destinations of the tests. Each listens on a loopback port
// of its own until its test ends, and returns "127.0.0.1:PORT".

// ioPatience bounds every connection of origins and applications.
const ioPatience = 90 * time.Second

// serveOrigin serves TCP connections by handle, which need not close them.
func serveOrigin(t testing.TB, handle func(c *net.TCPConn)) string {
	t.Helper()
	return serveOriginOn(t, "127.0.0.1:0", handle)
}

func serveOriginOn(t testing.TB, addr string, handle func(c *net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	// Connections are cut at the test's end: a client may have good reason to
	// keep one open for a while after its application has gone.
	ctx, cut := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				_ = c.SetDeadline(time.Now().Add(ioPatience))
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		cut()
		all.Wait()
	})
	return ln.Addr().String()
}

// echoOrigin sends back what it gets, and ends when its peer has ended.
func echoOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
}

// bulkOrigin is the far side of exchange: it reads and sends so many bytes of
// a pattern at the same time, then tells the SHA-256 of what it read.
func bulkOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		var order bulkOrder
		if err := binary.Read(c, binary.BigEndian, &order); err != nil {
			return
		}
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(c, pattern(order.Seed, order.Down))
			sent <- err
		}()
		sum := sha256.New()
		_, err := io.CopyN(sum, c, order.Up)
		if err = errors.Join(err, <-sent); err == nil {
			_, _ = c.Write(sum.Sum(nil))
		}
	})
}

// A bulkOrder is what an application asks a bulkOrigin for.
type bulkOrder struct {
	Up, Down int64
	Seed     uint64
}

// upSeed tells the pattern of the way up from that of the way down.
const upSeed = 1 << 63

// pattern is a reader of n bytes that depend on seed.
func pattern(seed uint64, n int64) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// closingOrigin answers one request line (see shortRequest) and closes right
// behind the answer.
func closingOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		line, err := readLine(c)
		if err != nil {
			return
		}
		if answer, err := shortAnswer(line); err == nil {
			_, _ = c.Write(answer)
		}
	})
}

// shortRequest asks a closingOrigin for an answer of n bytes.
func shortRequest(seed uint64, n int64) string { return fmt.Sprintf("%d %d\n", seed, n) }

// shortAnswer is what answers the line of a shortRequest.
func shortAnswer(line string) ([]byte, error) {
	var (
		seed uint64
		n    int64
	)
	if _, err := fmt.Sscan(line, &seed, &n); err != nil {
		return nil, fmt.Errorf("request line %q: %w", line, err)
	}
	return io.ReadAll(pattern(seed, n))
}

// bannerOrigin speaks first, and then echoes.
func bannerOrigin(t testing.TB) string {
	t.Helper()
	return serveOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, banner)
		_, _ = io.Copy(c, c)
	})
}

const banner = "220 this side speaks first\n"

// readLine reads up to a line's end, byte by byte so that nothing more is
// taken.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		if _, err := io.ReadFull(r, one); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			return string(line), nil
		}
	}
}
