package main

import (
	"context"
	"fmt"
	"math"
)

// A plan is how much is measured.
type plan struct {
	rounds  int
	volume  int64 // bytes of one transfer
	tunnels int   // idle ones
	short   int   // connections one after the other
	trips   int   // of datagrams
}

// warmUp is moved in each direction before anything counts.
const warmUp = 16 * mib

// A cost is what a transfer took.
type cost struct {
	cpu           []float64 // s/GiB of each process asked about
	rate          float64   // MiB/s
	reads, writes float64   // system calls per MiB of the first process
}

// measure makes a transfer by way of a proxy and returns what it cost each of
// some processes.
func (s *stage) measure(proxy string, dir direction, streams int, total int64, procs ...*process) (c cost, err error) {
	t, err := s.prepare(proxy, dir, streams)
	if err != nil {
		return c, procs[0].blame(err)
	}
	defer t.Close()
	before := make([]usage, len(procs))
	for i, p := range procs {
		if before[i], err = p.usage(); err != nil {
			return c, err
		}
	}
	took, err := t.move(total)
	if err != nil {
		return c, procs[0].blame(err)
	}
	for i, p := range procs {
		after, err := p.usage()
		if err != nil {
			return c, err
		}
		used := after.minus(before[i])
		c.cpu = append(c.cpu, used.cpu.Seconds()*gib/float64(total))
		if i == 0 {
			c.reads, c.writes = float64(used.reads)*mib/float64(total), float64(used.writes)*mib/float64(total)
		}
	}
	c.rate = float64(total) / mib / took.Seconds()
	return c, nil
}

// warm moves a little through clients that have just started.
func (s *stage) warm(clients ...*process) error {
	for _, p := range clients {
		for _, dir := range []direction{down, up} {
			if _, err := s.measure(p.addr, dir, 4, warmUp, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// A load is one kind of transfer.
type load struct {
	way     passage
	dir     direction
	streams int
}

// String is how the table names it.
func (l load) String() string {
	return fmt.Sprintf("%s %s, %s", l.way, l.dir, count(l.streams, "stream"))
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// loads are all kinds with these numbers of streams.
func loads(streams ...int) []load {
	var all []load
	for _, way := range passages {
		for _, dir := range []direction{down, up} {
			for _, n := range streams {
				all = append(all, load{way, dir, n})
			}
		}
	}
	return all
}

// cpuTarget is our goal for client CPU against the rival.
func (l load) cpuTarget() target {
	switch {
	case l.way == ws && l.dir == down:
		return ratioAtMost(0.40)
	case l.way == wss && l.dir == down:
		return ratioAtMost(0.42)
	case l.streams > 1:
		return ratioAtMost(0.45)
	case l.way == ws:
		return ratioAtMost(0.36)
	}
	return ratioAtMost(0.40)
}

func (l load) rateTarget() target {
	if l.way == ws {
		return ratioAtLeast(1.5)
	}
	return ratioAtLeast(1.4)
}

func (l load) floorTarget() target {
	if l.way == ws {
		return ratioAtMost(1.25)
	}
	return target{}
}

// partCPU measures client CPU and throughput, against the rival and the floor.
func partCPU(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	clients, floor, err := s.allClients()
	if err != nil {
		return err
	}
	for round := range p.rounds {
		for _, kind := range loads(1, 8) {
			c, err := s.three(ctx, round, kind, clients[kind.way], floor, p.volume)
			if err != nil {
				return err
			}
			ours, rival, least := c[0], c[1], c[2]
			book.add("client CPU, "+kind.String(), "s/GiB", kind.cpuTarget(), ours.cpu[0], rival.cpu[0])
			book.add("… against the relay, "+kind.String(), "s/GiB", kind.floorTarget(), ours.cpu[0], least.cpu[0])
			book.add("throughput, "+kind.String(), "MiB/s", kind.rateTarget(), ours.rate, rival.rate)
		}
		book.add("seal, mask, copy alone", "s/GiB", target{}, labourAlone(), math.NaN())
	}
	return nil
}

// allClients starts V2Ray as server, both clients on both ways to it, and the
// relay, and moves a little through all.
func (s *stage) allClients() (map[passage]pair, *process, error) {
	far, err := s.far()
	if err != nil {
		return nil, nil, err
	}
	floor, err := s.floor()
	if err != nil {
		return nil, nil, err
	}
	clients := map[passage]pair{}
	for _, way := range passages {
		both, err := s.clients(way, far[way])
		if err != nil {
			return nil, nil, err
		}
		clients[way] = both
		if err := s.warm(both.ours, both.rival); err != nil {
			return nil, nil, err
		}
	}
	return clients, floor, s.warm(floor)
}

// three makes the same transfer through our client, the rival's and the relay,
// one after the other and every other round the other way round.
func (s *stage) three(ctx context.Context, round int, kind load, both pair, floor *process, total int64) (c [3]cost, err error) {
	order := []int{0, 1, 2}
	if round%2 == 1 {
		order = []int{2, 1, 0}
	}
	for _, i := range order {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		p := [3]*process{both.ours, both.rival, floor}[i]
		if c[i], err = s.measure(p.addr, kind.dir, kind.streams, total, p); err != nil {
			return c, err
		}
	}
	return c, nil
}

// partSyscalls counts the clients' reads and writes. What asks the kernel only
// whether there is something to read does not count as a read there.
func partSyscalls(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	clients, floor, err := s.allClients()
	if err != nil {
		return err
	}
	bounds := map[passage]map[direction][2]float64{
		ws:  {down: {40, 20}, up: {20, 20}},
		wss: {down: {80, 20}, up: {20, 70}},
	}
	for round := range p.rounds {
		for _, kind := range loads(1) {
			c, err := s.three(ctx, round, kind, clients[kind.way], floor, p.volume/2)
			if err != nil {
				return err
			}
			name := fmt.Sprintf(", %s %s", kind.way, kind.dir)
			bound := bounds[kind.way][kind.dir]
			book.add("reads of the client"+name, "1/MiB", oursAtMost(bound[0]), c[0].reads, c[1].reads)
			book.add("writes of the client"+name, "1/MiB", oursAtMost(bound[1]), c[0].writes, c[1].writes)
		}
	}
	return nil
}

// partServer measures our server against V2Ray as server, with V2Ray as the
// client of both, and then our client on our server.
func partServer(ctx context.Context, l *lab, p plan, book *ledger) (err error) {
	s := l.stage()
	defer closing(s, &err)
	servers, loads, own := map[passage]pair{}, map[passage]pair{}, map[passage]*process{}
	for _, way := range passages {
		if servers[way], loads[way], own[way], err = s.servers(way); err != nil {
			return err
		}
	}
	for range p.rounds {
		for _, way := range passages {
			for _, dir := range []direction{down, up} {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := s.compareServers(book, load{way, dir, 1}, servers[way], loads[way], own[way], p.volume); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// servers starts both servers, a V2Ray client for each, and our client for
// ours.
func (s *stage) servers(way passage) (servers, load pair, own *process, err error) {
	if servers.ours, err = s.ourServer(way); err != nil {
		return
	}
	if servers.rival, err = s.rivalServer(way); err != nil {
		return
	}
	if load.ours, err = s.rivalClient(way, servers.ours.addr, false); err != nil {
		return
	}
	if load.rival, err = s.rivalClient(way, servers.rival.addr, false); err != nil {
		return
	}
	if own, err = s.ourClient(way, servers.ours.addr); err != nil {
		return
	}
	return servers, load, own, s.warm(load.ours, load.rival, own)
}

func (s *stage) compareServers(book *ledger, kind load, servers, loads pair, own *process, total int64) error {
	ours, err := s.measure(loads.ours.addr, kind.dir, kind.streams, total, loads.ours, servers.ours)
	if err != nil {
		return err
	}
	rival, err := s.measure(loads.rival.addr, kind.dir, kind.streams, total, loads.rival, servers.rival)
	if err != nil {
		return err
	}
	both, err := s.measure(own.addr, kind.dir, kind.streams, total, own, servers.ours)
	if err != nil {
		return err
	}
	bound := ratioAtMost(0.40)
	if kind.way == wss {
		bound = ratioAtMost(0.45)
	}
	book.add("server CPU, "+kind.String(), "s/GiB", bound, ours.cpu[1], rival.cpu[1])
	book.add("client CPU on vmess-server, "+kind.String(), "s/GiB", target{}, both.cpu[0], ours.cpu[0])
	book.add("throughput of our pair, "+kind.String(), "MiB/s", target{}, both.rate, rival.rate)
	return nil
}
