package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	oneWay    = 50 * time.Millisecond
	roundTrip = 2 * oneWay
	// between is how long the application waits before its next connection, so
	// that what is made ahead can be ready.
	between = 8 * roundTrip
	// tries are a client's connections in a row; the first is the cold one.
	tries = 4
	// stagger keeps those who measure at the same time out of step.
	stagger = 23 * time.Millisecond
)

// distant puts a distance in front of both ways to a server.
func (s *stage) distant() (map[passage]string, error) {
	near, err := s.far()
	if err != nil {
		return nil, err
	}
	far := map[passage]string{}
	for way, addr := range near {
		d, err := newDistance(addr, oneWay)
		if err != nil {
			return nil, err
		}
		s.add(d.Close)
		far[way] = d.addr()
	}
	return far, nil
}

// trip returns how long a round trip really takes, with what the forwarder's
// timers and this machine add to it: the unit of what is counted in trips.
func (s *stage) trip() (time.Duration, error) {
	d, err := newDistance(s.source, oneWay)
	if err != nil {
		return 0, err
	}
	s.add(d.Close)
	c, err := dialTCP(d.addr())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []float64
	for range 6 {
		start := time.Now()
		if err := writeLength(c, 1); err != nil {
			return 0, err
		}
		if err := readFull(c, make([]byte, 1)); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(start)))
	}
	return time.Duration(spreadOf(took[1:]).Median), nil // the first had to connect
}

// A probe is a client's connections in a row, and which of them speaks first.
type probe struct {
	name  string
	cold  float64 // the bound
	first func(proxy string) error
	both  pair
	took  [2][]time.Duration // ours and the rival's
}

// partRTT counts the round trips to the first byte, of clients that have just
// started and of those that have worked.
func partRTT(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.distant()
	if err != nil {
		return err
	}
	trip, err := s.trip()
	if err != nil {
		return err
	}
	for range p.rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rttRound(l, far, trip, book); err != nil {
			return err
		}
	}
	return nil
}

// rttRound starts clients afresh and lets all of them work at the same time:
// they wait far more than they work.
func rttRound(l *lab, far map[passage]string, trip time.Duration, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	probes, err := s.probes(far)
	if err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // those that start take the processor from those that work
	runProbes(probes)
	for _, p := range probes {
		for i := range tries {
			name, bound := fmt.Sprintf("first byte, %s, connection %d", p.name, i+1), oursAtMost(1.1)
			if i == 0 {
				name, bound = fmt.Sprintf("first byte, %s, cold", p.name), oursAtMost(p.cold+0.1)
			}
			ours, rival := p.took[0][i], p.took[1][i]
			if ours == 0 || rival == 0 {
				continue
			}
			book.add(name, "trips", bound, float64(ours)/float64(trip), float64(rival)/float64(trip))
		}
	}
	return nil
}

// probes starts both clients for each way and each one who speaks first.
func (s *stage) probes(far map[passage]string) ([]*probe, error) {
	var all []*probe
	for _, way := range passages {
		cold := map[passage]float64{ws: 3, wss: 4}[way]
		for _, p := range []*probe{
			{name: string(way) + ", application speaks first", cold: cold, first: func(proxy string) error { return short(proxy, s.source, 1) }},
			{name: string(way) + ", destination speaks first", cold: cold, first: func(proxy string) error { return listenFirst(proxy, s.banner) }},
		} {
			var err error
			if p.both, err = s.clients(way, far[way]); err != nil {
				return nil, err
			}
			all = append(all, p)
		}
	}
	return all, nil
}

func runProbes(probes []*probe) {
	var running sync.WaitGroup
	for i, p := range probes {
		for side, client := range []*process{p.both.ours, p.both.rival} {
			running.Go(func() {
				time.Sleep(time.Duration(2*i+side) * stagger)
				p.took[side] = inARow(client, p.first)
			})
		}
	}
	running.Wait()
}

// inARow times connections one after the other; one that failed took 0.
func inARow(client *process, first func(proxy string) error) []time.Duration {
	took := make([]time.Duration, tries)
	for i := range took {
		start := time.Now()
		if err := first(client.addr); err == nil {
			took[i] = time.Since(start)
		}
		time.Sleep(between)
	}
	return took
}

const (
	pageParts = 30
	partSize  = 16 * kib
)

// partPage times a page: one connection for the page itself, then all its
// parts in parallel; by a client that has just started, and once more.
func partPage(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.distant()
	if err != nil {
		return err
	}
	for range p.rounds {
		for _, way := range passages {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := pageRound(l, way, far[way], book); err != nil {
				return err
			}
		}
	}
	return nil
}

func pageRound(l *lab, way passage, far string, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	both, err := s.clients(way, far)
	if err != nil {
		return err
	}
	muxed, err := s.rivalClient(way, far, true)
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	for _, visit := range []string{"first", "again"} {
		var ms [3]float64
		for i, client := range []*process{both.ours, both.rival, muxed} {
			if ms[i], err = s.page(client); err != nil {
				return client.blame(err)
			}
		}
		name := fmt.Sprintf("page of %d, %s, %s", pageParts, way, visit)
		book.add(name, "ms", target{}, ms[0], ms[1])
		book.add(name+", rival with Mux", "ms", target{}, ms[0], ms[2])
		time.Sleep(between)
	}
	return nil
}

// page returns how many milliseconds a page takes. One in which a connection
// failed is visited again.
func (s *stage) page(client *process) (ms float64, err error) {
	for range attempts {
		start := time.Now()
		if err = short(client.addr, s.source, partSize); err == nil {
			err = atOnce(pageParts, pageParts, func(int) error { return short(client.addr, s.source, partSize) })
		}
		if err == nil {
			return float64(time.Since(start)) / float64(time.Millisecond), nil
		}
	}
	return 0, err
}
