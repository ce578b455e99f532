package main

import (
	"context"
	"fmt"
)

// partMux measures what both clients cost with Mux: transfers, and short
// connections, for which it is meant.
func partMux(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.far()
	if err != nil {
		return err
	}
	muxed := map[passage]pair{}
	for _, way := range passages {
		if muxed[way], err = s.muxed(way, far[way]); err != nil {
			return err
		}
		if err := s.warm(muxed[way].ours, muxed[way].rival); err != nil {
			return err
		}
	}
	for round := range p.rounds {
		for _, kind := range loads(1, 8) {
			if err := s.muxTransfer(ctx, round, book, kind, muxed[kind.way], p.volume/2); err != nil {
				return err
			}
		}
		for _, way := range passages {
			if err := s.muxShort(ctx, round, book, way, muxed[way], p.short); err != nil {
				return err
			}
		}
	}
	return nil
}

// muxed starts both clients with Mux.
func (s *stage) muxed(way passage, server string) (p pair, err error) {
	if p.ours, err = s.ourClient(way, server, withMux); err != nil {
		return p, err
	}
	p.rival, err = s.rivalClient(way, server, true)
	return p, err
}

func (s *stage) muxTransfer(ctx context.Context, round int, book *ledger, kind load, both pair, total int64) error {
	var c [2]cost
	err := both.inTurn(ctx, round, func(i int, client *process) (err error) {
		c[i], err = s.measure(client.addr, kind.dir, kind.streams, total, client)
		return err
	})
	if err != nil {
		return err
	}
	book.add("client CPU with Mux, "+kind.String(), "s/GiB", target{}, c[0].cpu[0], c[1].cpu[0])
	book.add("throughput with Mux, "+kind.String(), "MiB/s", target{}, c[0].rate, c[1].rate)
	return nil
}

func (s *stage) muxShort(ctx context.Context, round int, book *ledger, way passage, both pair, n int) error {
	var ms, failed [2]float64
	err := both.inTurn(ctx, round, func(i int, client *process) (err error) {
		ms[i], failed[i], err = s.shortOnes(client, n)
		return err
	})
	if err != nil {
		return err
	}
	book.add(fmt.Sprintf("client CPU of a new connection with Mux, %s", way), "ms", target{}, ms[0], ms[1])
	book.add(fmt.Sprintf("connections that failed with Mux, of %d, %s", n, way), "", target{}, failed[0], failed[1])
	return nil
}

// inTurn calls do with ours, 0, and the rival, 1, every other round the other
// way round.
func (p pair) inTurn(ctx context.Context, round int, do func(i int, client *process) error) error {
	for turn := range 2 {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := (turn + round) % 2
		if err := do(i, [2]*process{p.ours, p.rival}[i]); err != nil {
			return err
		}
	}
	return nil
}
