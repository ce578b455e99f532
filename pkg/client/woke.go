package client

import "time"

const (
	// wokenCheck is how long a tunnel may take to show that it has outlived a
	// sleep, or a change of networks.
	wokenCheck = 5 * time.Second
	// wokenMeasure is when a clock that was found wrong is measured then: the
	// network may still be coming up.
	wokenMeasure = 3 * time.Second
)

// woke does what is due after this computer slept, its clock was set or its
// addresses changed. Unused tunnels are dropped; those in use are tested, and
// end with a named cause if they are dead; new sessions get new tunnels. What
// was learnt of the way is learnt again. A server that was known is waited for,
// because the network may take a while to come up.
func (g *guard) woke() {
	g.pool.Drop()
	g.way.tunnels.Check(wokenCheck)
	if g.packets.sessions != nil {
		g.packets.sessions.Retire()
	}
	g.way.forget()
	g.doubt()
	if g.known() {
		g.worked.Store(g.now().UnixNano())
	}
	g.comeback.forget()
	g.looking.Lock()
	g.looked = time.Time{}
	g.looking.Unlock()
	go g.askAnew()
}

// askAnew lets the outcome of the last round of probes stand no longer, and has
// a clock that was found wrong measured. It waits for a round under way.
func (g *guard) askAnew() {
	g.round.Lock()
	defer g.round.Unlock()
	if g.closed {
		return
	}
	g.next = time.Time{}
	if g.measure != nil {
		g.measure.Reset(wokenMeasure)
	}
}
