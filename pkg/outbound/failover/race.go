package failover

import (
	"context"
	"net"
	"slices"
	"time"
)

const (
	// raceHeadStart is how long the first server of a race has alone, and
	// raceStep the time until each further one is dialled.
	raceHeadStart = time.Second
	raceStep      = 200 * time.Millisecond
	// maxRacers is how many servers are dialled at one time.
	maxRacers = 12
)

// A race finds a server that can be reached where the preferred one is not known
// to be healthy: an empty tunnel is dialled to one after the other, without
// waiting for those that are silent. The first that is ready wins, and the
// requests that wait go there. Servers that are preferred to it may take the
// time that they have otherwise: one that fails then is down, one that is slow
// serves the next request. The other dials are given up, which says nothing of
// their servers.
//
// A tunnel that is ready is not closed but waits in its server's pool: V2Ray logs
// each that ends without a request as a rejected one. Dials that are given up
// before that leave no trace there.
type race struct {
	members []*entry
	end     context.CancelFunc
	decided chan struct{} // closed when there is a winner, or all have failed

	// Guarded by the group.
	waiting int                           // requests
	dialing map[*entry]context.CancelFunc // dials under way
	winner  *entry
	failed  map[*entry]error
}

// pick returns the server among members, which are in order of preference, that
// takes a request; an error where none can be reached, and whether one of them
// was reached a moment ago and seems to restart.
func (f *Group) pick(ctx context.Context, members []*entry) (m *entry, restarts bool, err error) {
	if len(members) == 1 || members[0].server.Ready() {
		return members[0], false, nil
	}
	r := f.enter(members)
	if r == nil {
		return nil, false, net.ErrClosed
	}
	defer f.leave(r)
	select {
	case <-r.decided:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.winner != nil {
		return r.winner, false, nil
	}
	err = net.ErrClosed
	for _, m := range members {
		if one := r.failed[m]; one != nil {
			err = one
			restarts = restarts || m.server.Classify(one, nil).Restarting
		}
	}
	return nil, restarts, err
}

// enter has a request wait for a race: for the one under way, where its outcome
// serves the request, too. It is nil once the group is closed.
func (f *Group) enter(members []*entry) *race {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	r := f.racing
	if r == nil || !r.serves(members) {
		ctx, end := context.WithCancel(f.ctx)
		r = &race{
			members: members, end: end, decided: make(chan struct{}),
			dialing: map[*entry]context.CancelFunc{}, failed: map[*entry]error{},
		}
		f.racing = r
		f.trials.Go(func() { f.run(ctx, r) })
	}
	r.waiting++
	return r
}

// serves reports whether a race's winner is, or will be, among members. It is
// called with the group's lock held.
func (r *race) serves(members []*entry) bool {
	if r.winner != nil {
		return !r.winner.down && slices.Contains(members, r.winner)
	}
	for _, m := range members {
		if !slices.Contains(r.members, m) {
			return false
		}
	}
	for _, m := range r.members {
		if r.failed[m] == nil && !slices.Contains(members, m) {
			return false
		}
	}
	return true
}

// leave ends a request's wait. A race that nobody waits for any more ends.
func (f *Group) leave(r *race) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.waiting--; r.waiting == 0 && r.winner == nil {
		r.end()
		if f.racing == r {
			f.racing = nil
		}
	}
}

// A dialed is the end of a race's dial.
type dialed struct {
	member *entry
	err    error
}

// run runs a race to its end, which is that of its last dial.
func (f *Group) run(ctx context.Context, r *race) {
	ended := make(chan dialed)
	next := time.NewTimer(0)
	defer next.Stop()
	for started, running := 0, 0; ; {
		select {
		case <-next.C:
			if started == len(r.members) || running == maxRacers || ctx.Err() != nil || r.isDecided() {
				break
			}
			m := r.members[started]
			started, running = started+1, running+1
			dialCtx := f.dialing(ctx, r, m)
			f.trials.Go(func() { ended <- dialed{m, m.server.Prepare(dialCtx)} })
			if running == 1 {
				next.Reset(raceHeadStart)
			} else {
				next.Reset(raceStep)
			}
		case d := <-ended:
			running--
			f.dialEnded(r, d)
			if d.err != nil {
				next.Reset(0) // nobody waits for the time of one that failed
			}
		}
		if running == 0 && (started == len(r.members) || ctx.Err() != nil || r.isDecided()) {
			break
		}
	}
	f.over(r)
}

func (r *race) isDecided() bool {
	select {
	case <-r.decided:
		return true
	default:
		return false
	}
}

// dialing notes that a server is dialled, and returns the context of that.
func (f *Group) dialing(ctx context.Context, r *race, m *entry) context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, r.dialing[m] = context.WithCancel(ctx)
	return ctx
}

// dialEnded notes the end of a dial. The first that succeeds decides the race,
// and ends the dials to servers that come after it.
func (f *Group) dialEnded(r *race, d dialed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.dialing[d.member]()
	delete(r.dialing, d.member)
	switch {
	case d.err != nil:
		r.failed[d.member] = d.err
		return
	case r.winner != nil:
		return
	}
	r.winner = d.member
	close(r.decided)
	behind := r.members[slices.Index(r.members, d.member):]
	for _, m := range behind {
		if cancel := r.dialing[m]; cancel != nil {
			cancel()
		}
	}
	f.replace()
}

// over ends a race whose dials have ended.
func (f *Group) over(r *race) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.end()
	if f.racing == r {
		f.racing = nil
	}
	if r.winner == nil {
		close(r.decided)
	}
	f.replace()
	f.choose("is back", "it is back, and comes before "+f.using.quoted())
}

// undecided reports whether a race may still show that a server cannot be
// reached. It is called with the lock held.
func (f *Group) undecided(m *entry) bool {
	r := f.racing
	if r == nil {
		return false
	}
	if r.winner == nil {
		return slices.Contains(r.members, m)
	}
	return r.dialing[m] != nil
}
