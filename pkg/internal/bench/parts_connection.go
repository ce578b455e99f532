package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"
)

// partConn measures the client's CPU for a short connection: one KiB answered
// to a request, 16 connections at a time.
func partConn(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	clients, _, err := s.allClients()
	if err != nil {
		return err
	}
	for range p.rounds {
		for _, way := range passages {
			var ms, failed [2]float64
			for i, client := range []*process{clients[way].ours, clients[way].rival} {
				if err := ctx.Err(); err != nil {
					return err
				}
				if ms[i], failed[i], err = s.shortOnes(client, p.short); err != nil {
					return err
				}
			}
			book.add(fmt.Sprintf("client CPU of a new connection, %s", way), "ms", ratioAtMost(0.60), ms[0], ms[1])
			book.add(fmt.Sprintf("connections that failed, of %d, %s", p.short, way), "", target{}, failed[0], failed[1])
		}
	}
	return nil
}

// shortOnes returns the milliseconds of CPU that each of n connections costs a
// client, with what comes in the second after the last, and how many attempts
// failed.
func (s *stage) shortOnes(client *process, n int) (ms, failed float64, err error) {
	before, err := client.usage()
	if err != nil {
		return 0, 0, err
	}
	var bad atomic.Int64
	err = atOnce(n, 16, func(int) error {
		c, failed, err := insist(client.addr, s.source, kib)
		bad.Add(int64(failed))
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		return 0, 0, client.blame(err)
	}
	time.Sleep(time.Second)
	after, err := client.usage()
	return after.minus(before).cpu.Seconds() * 1000 / float64(n), float64(bad.Load()), err
}

const (
	// settle is how long tunnels are idle before they are weighed.
	settle = 3 * time.Second
	// afterwards is how long the system has to take memory back.
	afterwards = 30 * time.Second
)

// A hoard is a client with idle tunnels.
type hoard struct {
	client              *process
	before, full, empty float64 // RSS in KiB
	closed              time.Time
}

// partIdle weighs idle tunnels, and what is left of them half a minute after
// they were closed.
func partIdle(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.far()
	if err != nil {
		return err
	}
	hoards := map[passage][2]*hoard{}
	for _, way := range passages {
		both, err := s.clients(way, far[way])
		if err != nil {
			return err
		}
		hoards[way] = [2]*hoard{{client: both.ours}, {client: both.rival}}
		for _, h := range hoards[way] {
			if err := s.hoard(ctx, h, p.tunnels); err != nil {
				return err
			}
		}
	}
	for _, way := range passages {
		if err := weigh(ctx, book, way, hoards[way], p.tunnels); err != nil {
			return err
		}
	}
	return nil
}

// hoard opens tunnels, weighs the client and lets the destination close them.
func (s *stage) hoard(ctx context.Context, h *hoard, n int) (err error) {
	if err := short(h.client.addr, s.source, kib); err != nil {
		return h.client.blame(err)
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	if h.before, err = h.client.rss(); err != nil {
		return err
	}
	conns, err := s.tunnels(h.client.addr, n)
	if err == nil {
		if err = sleep(ctx, settle); err == nil {
			h.full, err = h.client.rss()
		}
	} else {
		err = h.client.blame(err)
	}
	s.open.halfClose()
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
	h.closed = time.Now()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	return s.open.waitEmpty(ctx)
}

func weigh(ctx context.Context, book *ledger, way passage, hoards [2]*hoard, n int) (err error) {
	var full, empty [2]float64
	for i, h := range hoards {
		if err := sleep(ctx, time.Until(h.closed.Add(afterwards))); err != nil {
			return err
		}
		if h.empty, err = h.client.rss(); err != nil {
			return err
		}
		full[i], empty[i] = (h.full-h.before)/float64(n), (h.empty-h.before)/float64(n)
	}
	bound, left := ratioAtMost(0.30), oursAtMost(3)
	if way == wss {
		bound, left = ratioAtMost(0.42), oursAtMost(4)
	}
	book.add(fmt.Sprintf("idle tunnel, %s, of %d", way, n), "KiB", bound, full[0], full[1])
	book.add(fmt.Sprintf("left of it 30 s after closing, %s", way), "KiB", left, empty[0], empty[1])
	return nil
}

// partRest looks at clients that do nothing.
func partRest(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.far()
	if err != nil {
		return err
	}
	for range max(p.rounds, 7) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := restRound(l, far[ws], book); err != nil {
			return err
		}
	}
	ours, err := size(l.local)
	if err != nil {
		return err
	}
	rival, err := size(l.v2ray)
	book.add("binary", "MiB", oursAtMost(12), ours, rival)
	return err
}

func restRound(l *lab, far string, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	var rss, ready [2]float64
	for i, begin := range []func() (*process, error){
		func() (*process, error) { return s.ourClient(ws, far) },
		func() (*process, error) { return s.rivalClient(ws, far, false) },
	} {
		client, err := begin()
		if err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
		if rss[i], err = client.rss(); err != nil {
			return err
		}
		rss[i] /= kib
		ready[i] = float64(client.ready) / float64(time.Millisecond)
	}
	book.add("at rest, RSS", "MiB", oursAtMost(10), rss[0], rss[1])
	book.add("start until the port accepts", "ms", oursAtMost(5), ready[0], ready[1])
	return nil
}

func size(file string) (float64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return math.NaN(), err
	}
	return float64(info.Size()) / mib, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
