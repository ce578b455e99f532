package main

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A direction is which way the bytes of a transfer go, as the application sees
// it.
type direction string

const (
	down direction = "down"
	up   direction = "up"
)

// A V2Ray server refuses about one honest request in a thousand by mistake, and
// then holds the connection for a minute. What is about numbers, not about
// patience, gives such a connection up after askPatience and tries again.
const (
	askPatience = 3 * time.Second
	attempts    = 4
)

// ask connects to a source by way of a SOCKS5 proxy and has n bytes answered,
// once.
func ask(proxy, source string, n int64) (*net.TCPConn, error) {
	c, err := socksConnect(proxy, source)
	if err != nil {
		return nil, err
	}
	err = c.SetDeadline(time.Now().Add(askPatience))
	if err == nil {
		err = writeLength(c, n)
	}
	if err == nil {
		err = readMany(c, n)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, c.SetDeadline(time.Now().Add(ioPatience))
}

// insist is ask for as many attempts as it may take; it says how many failed.
func insist(proxy, source string, n int64) (c *net.TCPConn, failed int, err error) {
	for failed = range attempts {
		if c, err = ask(proxy, source, n); err == nil {
			return c, failed, nil
		}
	}
	return nil, attempts, err
}

// short makes one short connection with an answer of n bytes.
func short(proxy, source string, n int64) error {
	c, err := ask(proxy, source, n)
	if err != nil {
		return err
	}
	return c.Close()
}

// listenFirst connects to the origin that speaks first and reads what it says.
func listenFirst(proxy, banner string) error {
	c, err := socksConnect(proxy, banner)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(askPatience)); err != nil {
		return err
	}
	return readFull(c, make([]byte, len(bannerText)))
}

// tunnels opens n connections to the source, each with one byte behind it, and
// leaves them open. Those that are open are returned also with an error.
func (o *origins) tunnels(proxy string, n int) ([]*net.TCPConn, error) {
	conns := make([]*net.TCPConn, n)
	err := atOnce(n, 32, func(i int) (err error) {
		if conns[i], _, err = insist(proxy, o.source, 1); err != nil {
			return err
		}
		return conns[i].SetDeadline(time.Time{})
	})
	return conns, err
}

// A transfer is some streams that are ready to carry bytes one way.
type transfer struct {
	dir   direction
	conns []*net.TCPConn
	noise []byte
}

// prepare opens the streams of a transfer by way of a SOCKS5 proxy. Close
// closes them.
func (o *origins) prepare(proxy string, dir direction, streams int) (*transfer, error) {
	t := &transfer{dir, make([]*net.TCPConn, streams), o.data}
	origin, first := o.source, int64(1)
	if dir == up {
		origin = o.sink
	}
	err := atOnce(streams, streams, func(i int) (err error) {
		t.conns[i], _, err = insist(proxy, origin, first)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close implements io.Closer.
func (t *transfer) Close() error {
	for _, c := range t.conns {
		if c != nil {
			_ = c.Close()
		}
	}
	return nil
}

// move moves total bytes, shared by the streams, and returns how long it took
// until they had all arrived.
func (t *transfer) move(total int64) (time.Duration, error) {
	start := time.Now()
	share := total / int64(len(t.conns))
	err := atOnce(len(t.conns), len(t.conns), func(i int) error {
		c := t.conns[i]
		if err := writeLength(c, share); err != nil {
			return err
		}
		if t.dir == down {
			return readMany(c, share)
		}
		if err := writeMany(c, t.noise, share); err != nil {
			return err
		}
		return readFull(c, make([]byte, 1))
	})
	return time.Since(start), err
}

// atOnce calls do with 0 to n-1, at most so many at a time. After the first
// error no more calls begin; it returns all errors there were.
func atOnce(n, most int, do func(int) error) error {
	var (
		workers sync.WaitGroup
		mu      sync.Mutex
		next    int
		failed  error
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == n || failed != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(n, most) {
		workers.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := do(i); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return failed
}
