package mux

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// A step is one operation of the state machine, on one of the sessions.
type step struct {
	op      string
	session int
	n       int
}

// modelled is a session and what should be true of it.
type modelled struct {
	client, server transport.StreamConn
	up, down       flow

	sealed     bool // the client's CloseWrite
	clientGone bool // the client closed or reset it, or its held-back End went
	serverGone bool // the server side is closed, by itself or with its handler
	serverEnd  bool // the server said End
	// clientErr and serverErr are what reads give behind the data.
	clientErr, serverErr error
}

// A flow is one direction: byte i of it is pattern(i).
type flow struct {
	seed       byte
	sent, read int
}

func (f *flow) pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(f.sent+i)*7 ^ byte((f.sent+i)>>8) ^ f.seed
	}
	return p
}

func (f *flow) check(p []byte) error {
	for i, b := range p {
		at := f.read + i
		if want := byte(at)*7 ^ byte(at>>8) ^ f.seed; b != want {
			return fmt.Errorf("byte %d is %#x, want %#x", at, b, want)
		}
	}
	f.read += len(p)
	if f.read > f.sent {
		return fmt.Errorf("%d bytes read, %d sent", f.read, f.sent)
	}
	return nil
}

var errBroken = errors.New("any tunnel error")

// same reports whether an error is the one that the model has.
func same(got, want error) bool {
	if want == errBroken {
		return errors.As(got, new(*TunnelError))
	}
	return got == want
}

type machine struct {
	t        *testing.T
	lab      *lab
	target   netaddr.Addr
	sessions []*modelled
}

func (m *machine) do(s step) error {
	if s.op == "open" || len(m.sessions) == 0 {
		return m.open(s.n)
	}
	c := m.sessions[s.session%len(m.sessions)]
	switch s.op {
	case "client write":
		return c.clientWrite(s.n)
	case "server write":
		return c.serverWrite(s.n)
	case "client read":
		return c.clientRead()
	case "server read":
		return c.serverRead()
	case "client end":
		_ = c.client.CloseWrite()
		c.sealed = true
	case "client close":
		c.clientLeaves(c.client.Close, io.EOF)
	case "client reset":
		c.clientLeaves(func() error { return transport.Reset(c.client) }, ErrFailed)
	case "server end":
		c.serverLeaves(c.server.CloseWrite, io.EOF)
	case "server close":
		c.serverLeaves(c.server.Close, io.EOF)
		c.serverGone = true
	case "server reset":
		c.serverLeaves(func() error { return transport.Reset(c.server) }, ErrFailed)
		c.serverGone = true
	case "break":
		m.breakAll()
	case "sleep":
		m.sleep()
	}
	return nil
}

func (m *machine) open(n int) error {
	c := &modelled{up: flow{seed: byte(len(m.sessions))}, down: flow{seed: ^byte(len(m.sessions))}}
	first := c.up.pattern(n)
	var err error
	if c.client, err = m.lab.Client.DialStream(m.t.Context(), m.target, first); err != nil {
		return err
	}
	if n == 0 {
		_, _ = c.client.Write(nil)
	}
	c.up.sent += n
	c.server = <-m.lab.streams
	m.sessions = append(m.sessions, c)
	return nil
}

// bound keeps writes from waiting for room, which the model has no notion of.
const bound = 100 << 10

func (c *modelled) clientWrite(n int) error {
	if c.up.sent-c.up.read+n > bound {
		return nil
	}
	wrote, err := c.client.Write(c.up.pattern(n))
	over := c.sealed || c.clientGone || c.clientErr != nil
	if over && n == 0 {
		return nil
	}
	if over != (err != nil) {
		return fmt.Errorf("client write of %d: %v, over: %v", n, err, over)
	}
	if !c.clientGone && !c.sealed && c.clientErr != nil && c.clientErr != io.EOF && !same(err, c.clientErr) {
		return fmt.Errorf("client write: %w, want %w", err, c.clientErr)
	}
	c.up.sent += wrote
	return nil
}

func (c *modelled) serverWrite(n int) error {
	if c.down.sent-c.down.read+n > bound || c.clientGone && !c.serverGone {
		return nil // the latter waits
	}
	wrote, err := c.server.Write(c.down.pattern(n))
	over := c.serverGone || c.serverEnd || c.serverErr != nil
	if n > 0 && over != (err != nil) {
		return fmt.Errorf("server write of %d: %v, over: %v", n, err, over)
	}
	c.down.sent += wrote
	return nil
}

func (c *modelled) clientRead() error {
	if c.clientGone && c.clientErr == nil {
		if _, err := c.client.Read(make([]byte, 1)); err != errClosed {
			return fmt.Errorf("client read after Close: %v", err)
		}
		return nil
	}
	return readAll(c.client, &c.down, c.clientErr)
}

func (c *modelled) serverRead() error {
	if c.serverGone {
		if _, err := c.server.Read(make([]byte, 1)); err != errClosed {
			return fmt.Errorf("server read after Close: %v", err)
		}
		return nil
	}
	return readAll(c.server, &c.up, c.serverErr)
}

// readAll reads what must be there, and what comes behind it if it is known.
func readAll(c transport.StreamConn, f *flow, want error) error {
	p := make([]byte, 3000)
	for f.read < f.sent {
		n, err := c.Read(p)
		if err != nil {
			return fmt.Errorf("read: %w with %d of %d bytes read", err, f.read, f.sent)
		}
		if err := f.check(p[:n]); err != nil {
			return err
		}
	}
	if want == nil {
		return nil
	}
	if n, err := c.Read(p); n != 0 || !same(err, want) {
		return fmt.Errorf("at the end: %d bytes, %v; want %v", n, err, want)
	}
	return nil
}

// clientLeaves ends the session from the client's side; the server reads last
// behind what was sent.
func (c *modelled) clientLeaves(how func() error, last error) {
	_ = how()
	if !c.clientGone && c.clientErr == nil {
		if c.serverErr == nil {
			c.serverErr = last
		}
		if last != io.EOF {
			c.serverGone = true // its handler is cancelled
		}
	}
	c.clientGone, c.clientErr = true, nil
	c.down.read = c.down.sent
}

func (c *modelled) serverLeaves(how func() error, last error) {
	_ = how()
	live := !c.clientGone && !c.serverGone && c.clientErr == nil && c.serverErr == nil
	c.serverEnd = true
	if c.serverErr == nil {
		c.serverErr = io.EOF
	}
	if live {
		c.clientErr = last
	}
}

// breakAll resets the tunnels' streams.
func (m *machine) breakAll() {
	for _, e := range m.lab.ends {
		_ = e.Reset()
	}
	for _, c := range m.sessions {
		if c.clientGone || c.serverEnd || c.clientErr != nil || c.serverErr != nil {
			continue
		}
		c.clientErr = errBroken
		c.serverErr, c.serverGone = errBroken, true
	}
}

// sleep is longer than every patience.
func (m *machine) sleep() {
	for _, c := range m.sessions {
		if c.sealed && c.clientErr == nil && !c.clientGone && c.down.read == c.down.sent {
			c.clientErr, c.serverErr = ErrSilent, io.EOF
		}
		if c.serverErr != nil {
			c.serverGone = true
		}
	}
	time.Sleep(time.Minute)
}

// TestStateMachine holds client and server to a model of what sessions do.
func TestStateMachine(t *testing.T) {
	ops := []string{
		"open", "client write", "client write", "server write", "server write", "client read", "server read",
		"client end", "client close", "client reset", "server end", "server close", "server reset", "break", "sleep",
	}
	draw := rapid.Custom(func(t *rapid.T) step {
		return step{
			op:      rapid.SampledFrom(ops).Draw(t, "op"),
			session: rapid.IntRange(0, 30).Draw(t, "session"),
			n:       rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(8190, 8194), rapid.Just(40000)).Draw(t, "n"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(draw, 1, 60).Draw(rt, "steps")
		var failed error
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.hand()
			l.Client.Concurrency = 4
			m := &machine{t: t, lab: l, target: addr(t, "example.com:80")}
			for i, s := range steps {
				synctest.Wait()
				if failed = m.do(s); failed != nil {
					failed = fmt.Errorf("step %d, %+v: %w", i, s, failed)
					break
				}
			}
			for i, c := range m.sessions {
				synctest.Wait()
				if failed == nil {
					if failed = errors.Join(c.clientRead(), c.serverRead()); failed != nil {
						failed = fmt.Errorf("session %d at last: %w", i, failed)
					}
				}
				_ = c.client.Close()
			}
			l.close()
		})
		if failed != nil {
			rt.Fatal(failed)
		}
	})
}
