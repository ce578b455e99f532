package client

import (
	"fmt"

	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/status/stats"
	"vmess-local/pkg/transport"
)

// A datagramWatcher lists UDP associations among the open connections. It
// implements udp.Watcher.
type datagramWatcher struct{ board *stats.Registry }

var _ udp.Watcher = datagramWatcher{}

// Begin implements udp.Watcher.
func (w datagramWatcher) Begin(r *transport.Request, moved *udp.Moved, cut func()) (end func()) {
	shown := *r
	shown.Inbound += " UDP"
	over := w.board.BeginMany(&shown, func() string { return words(moved) }, &moved.Up.Bytes, &moved.Down.Bytes, cut)
	return func() { over(false) }
}

// words says where an association leads, which is no single place.
func words(m *udp.Moved) string {
	n, noun := m.Destinations.Load(), "destinations"
	if n == 1 {
		noun = "destination"
	}
	text := fmt.Sprintf("%d %s", n, noun)
	if n == udp.MaxCountedDestinations {
		text += " or more"
	}
	return fmt.Sprintf("%s, %d datagrams up and %d down", text, m.Up.Packets.Load(), m.Down.Packets.Load())
}

// datagramTotals is what the associations of some generations did.
type datagramTotals struct {
	open, opened, refused int64
	up, down              int64 // datagrams
	upBytes, downBytes    int64
	dropped               map[udp.Drop]int64
}

// add adds what the associations of a generation have done so far.
func (t *datagramTotals) add(g *generation) {
	if g.associations == nil {
		return
	}
	s := &g.associations.Stats
	t.open += s.Open.Load()
	t.opened += s.Opened.Load()
	t.refused += s.Refused.Load()
	t.up += s.Up.Packets.Load()
	t.down += s.Down.Packets.Load()
	t.upBytes += s.Up.Bytes.Load()
	t.downBytes += s.Down.Bytes.Load()
	s.Dropped.Each(func(reason udp.Drop, n int64) { t.dropped[reason] += n })
}

// datagrams returns what all associations since the start did.
func (c *Client) datagrams() datagramTotals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.pastDatagrams
	t.dropped = map[udp.Drop]int64{}
	for reason, n := range c.pastDatagrams.dropped {
		t.dropped[reason] = n
	}
	for g := range c.leaving {
		t.add(g)
	}
	t.add(c.now)
	return t
}

// The JSON of UDP in /api/state.
type pageUDP struct {
	Open      int64            `json:"open"` // associations
	Opened    int64            `json:"opened"`
	Refused   int64            `json:"refused"`
	Form      string           `json:"form"` // how datagrams travel to the server that is used
	NAT       string           `json:"nat"`  // what that means, in words
	Up        int64            `json:"up"`   // datagrams
	Down      int64            `json:"down"`
	UpBytes   int64            `json:"upBytes"`
	DownBytes int64            `json:"downBytes"`
	Dropped   map[string]int64 `json:"dropped"` // by reason, those that there were
}

// udp tells of UDP; nil when it is off.
func (p page) udp() *pageUDP {
	g := p.generation()
	if g.associations == nil {
		return nil
	}
	t, form := p.datagrams(), g.fleet.current().packets.Encoding()
	u := &pageUDP{
		Open: t.open, Opened: t.opened, Refused: t.refused, Form: form.String(), NAT: form.NATBehavior(),
		Up: t.up, Down: t.down, UpBytes: t.upBytes, DownBytes: t.downBytes, Dropped: map[string]int64{},
	}
	for reason, n := range t.dropped {
		if n > 0 {
			u.Dropped[reason.String()] = n
		}
	}
	return u
}
