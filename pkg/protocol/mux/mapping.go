package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// mappingLinger is how long a mapping whose tunnel was lost waits for its client
// to name it again over another, as Xray's does.
const mappingLinger = time.Minute

// ownLinger is the same for clients of this package, which have the other tunnel
// before they leave one.
const ownLinger = 5 * time.Second

// Mappings are the UDP associations of a server whose clients gave them global
// ids (docs/protocol.md 11): a session with the id of one takes it over, with
// its socket, from the session that had it, over whatever tunnel. The zero value
// works; all tunnels of a server share one.
type Mappings struct {
	mu   sync.Mutex
	open map[mappingKey]*mapping
}

// A mappingKey is a user's own global id.
type mappingKey struct {
	user string
	id   [8]byte
}

// join makes a session that of the mapping which its client means. It is nil
// where the mapping has a handler, and otherwise for the caller to have handled.
func (a *Mappings) join(key mappingKey, conn *packets, linger time.Duration) *mapping {
	a.mu.Lock()
	m := a.open[key]
	if m != nil {
		if old, ok := m.move(conn); ok {
			a.mu.Unlock()
			old.detach(ErrEnded, false)
			old.finish(io.EOF) // behind what it has received
			return nil
		}
	}
	defer a.mu.Unlock()
	m = &mapping{all: a, key: key, conn: conn, linger: linger}
	m.moved = sync.NewCond(&m.mu)
	if a.open == nil {
		a.open = map[mappingKey]*mapping{}
	}
	a.open[key] = m
	return m
}

// A mapping is a server's side of an association that goes from session to
// session.
type mapping struct {
	all    *Mappings
	key    mappingKey
	linger time.Duration // after its tunnel was lost

	mu     sync.Mutex
	moved  *sync.Cond
	conn   *packets
	lost   *time.Timer // runs while there is no tunnel
	over   bool        // nobody came again
	closed bool
}

var (
	_ transport.PacketConn         = (*mapping)(nil)
	_ transport.PooledPacketReader = (*mapping)(nil)
)

// move gives the mapping another session, unless it has ended.
func (m *mapping) move(conn *packets) (old *packets, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.over {
		return nil, false
	}
	old, m.conn = m.conn, conn
	if m.lost != nil {
		m.lost.Stop()
		m.lost = nil
	}
	m.moved.Broadcast()
	return old, true
}

func (m *mapping) current() *packets {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn
}

// await waits for the session that comes after one whose reading ended with err,
// and reports whether there is one.
func (m *mapping) await(ended *packets, err error) bool {
	var broken *TunnelError
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.conn == ended && !m.closed && !m.over {
		if !errors.As(err, &broken) {
			m.over = true // its client has ended it
			break
		}
		if m.lost == nil {
			m.lost = time.AfterFunc(m.linger, func() { m.giveUp(ended) })
		}
		m.moved.Wait()
	}
	return m.conn != ended && !m.closed
}

func (m *mapping) giveUp(ended *packets) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = m.conn == ended
	m.moved.Broadcast()
}

// ReadPacketPooled implements transport.LazyPacketReader.
func (m *mapping) ReadPacketPooled() (*transport.Buffer, []byte, netaddr.Addr, error) {
	for {
		c := m.current()
		b, p, to, err := c.ReadPacketPooled()
		if err == nil || !m.await(c, err) {
			return b, p, to, err
		}
	}
}

// ReadPacket implements transport.PacketConn.
func (m *mapping) ReadPacket(p []byte) (int, netaddr.Addr, error) {
	b, data, to, err := m.ReadPacketPooled()
	if err != nil {
		return 0, to, err
	}
	defer b.Release()
	return copy(p, data), to, nil
}

// WritePacket implements transport.PacketConn. While there is no tunnel datagrams
// are dropped: the reader knows when nobody comes again.
func (m *mapping) WritePacket(p []byte, from netaddr.Addr) error {
	for {
		c := m.current()
		err := c.WritePacket(p, from)
		switch {
		case err == nil || transport.PacketLost(err):
			return err
		case m.current() == c:
			return fmt.Errorf("%w (%w)", err, transport.ErrPacketDropped)
		}
	}
}

// Close implements transport.PacketConn.
func (m *mapping) Close() error {
	m.mu.Lock()
	m.closed = true
	if m.lost != nil {
		m.lost.Stop()
	}
	m.moved.Broadcast()
	c := m.conn
	m.mu.Unlock()
	m.all.mu.Lock()
	if m.all.open[m.key] == m {
		delete(m.all.open, m.key)
	}
	m.all.mu.Unlock()
	return c.Close()
}

// handleMapping runs the handler of a mapping, which outlives the tunnel, until
// the server ends.
func (t *serverTunnel) handleMapping(m *mapping, f Frame) {
	defer t.running.Add(-1)
	ctx, cancel := context.WithCancel(t.outer)
	defer cancel()
	defer m.Close()
	t.server.HandlePackets(ctx, &PacketRequest{
		Destination: f.Address, User: t.user, Source: t.source, FullCone: true, Conn: m,
	})
}
