package main

import (
	"context"
	"fmt"
	"time"
)

// A match is two clients whose datagrams are compared.
type match struct {
	name string // of the form in which they travel
	want target
	both pair
}

// partUDP measures round trips of datagrams with an echo, of one association
// and of several at a time.
func partUDP(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.far()
	if err != nil {
		return err
	}
	matches := map[passage][]match{}
	for _, way := range passages {
		if matches[way], err = s.matches(way, far[way]); err != nil {
			return err
		}
	}
	for round := range p.rounds {
		for _, way := range passages {
			for _, m := range matches[way] {
				for _, n := range []int{1, 8} {
					if err := s.play(ctx, round, book, way, m, n, p.trips); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// matches starts the clients: towards V2Ray in the form it understands, and in
// Mux; and towards our server ours by XUDP.
func (s *stage) matches(way passage, far string) ([]match, error) {
	plain, err := s.udpClients(way, far, "plain")
	if err != nil {
		return nil, err
	}
	muxed, err := s.muxed(way, far)
	if err != nil {
		return nil, err
	}
	server, err := s.ourServer(way)
	if err != nil {
		return nil, err
	}
	xudp, err := s.udpClients(way, server.addr, "xudp")
	if err != nil {
		return nil, err
	}
	return []match{
		{"", ratioAtMost(0.60), plain},
		{", Mux", target{}, muxed},
		{", XUDP on vmess-server", target{}, xudp},
	}, nil
}

// udpClients starts ours with a form of datagrams, and the rival, which knows
// one.
func (s *stage) udpClients(way passage, server, mode string) (p pair, err error) {
	if p.ours, err = s.ourClient(way, server, withUDP(mode)); err != nil {
		return p, err
	}
	p.rival, err = s.rivalClient(way, server, false)
	return p, err
}

func (s *stage) play(ctx context.Context, round int, book *ledger, way passage, m match, n, trips int) error {
	var us, rate [2]float64
	err := m.both.inTurn(ctx, round, func(i int, client *process) (err error) {
		us[i], rate[i], err = s.converse(client, n, trips)
		return err
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s%s, %s", way, m.name, count(n, "association"))
	book.add("client CPU of a UDP round trip, "+name, "µs", m.want, us[0], us[1])
	book.add("UDP round trips, "+name, "1/s", target{}, rate[0], rate[1])
	return nil
}

// converse makes round trips in n associations at a time. It returns how many
// microseconds of CPU each costs a client, and how many there are in a second.
func (s *stage) converse(client *process, n, trips int) (us, rate float64, err error) {
	talks, err := s.talks(client.addr, n)
	if err != nil {
		return 0, 0, client.blame(err)
	}
	defer hangUp(talks)
	before, err := client.usage()
	if err != nil {
		return 0, 0, err
	}
	start, share := time.Now(), max(1, trips/n)
	if err := atOnce(n, n, func(i int) error { return talks[i].trips(share) }); err != nil {
		return 0, 0, client.blame(err)
	}
	took := time.Since(start)
	after, err := client.usage()
	if err != nil {
		return 0, 0, err
	}
	made := float64(share * n)
	return float64(after.minus(before).cpu) / float64(time.Microsecond) / made, made / took.Seconds(), nil
}
