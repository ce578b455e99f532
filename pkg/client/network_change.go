package client

import (
	"time"

	"vmess-local/pkg/host/netmon"
)

const (
	// resumePingTimeout is how long a tunnel may take to show that it has outlived a
	// sleep, or a change of networks.
	resumePingTimeout = 5 * time.Second
	// mostPatience is how much longer it may take after a loss of the network:
	// pings tell by then.
	mostPatience = time.Minute
	// wokenMeasure is when a clock that was found wrong is measured then: the
	// network may still be coming up.
	wokenMeasure = 3 * time.Second
)

// onNetworkChange does what is due after this computer slept, its clock was set or its
// addresses changed. Unused tunnels are dropped; those in use are tested, and
// end with a named cause if they are dead; new sessions get new tunnels. What
// was learnt of the way is learnt again, and attempts under way are made anew,
// for they may wait for a network that is gone. A server that was known is waited for,
// because the network may take a while to come up.
//
// While there is no way to the world no tunnel could pass its test, though it
// may outlive the loss: the test is made when there is one again. TCP doubles
// the pauses between its attempts, so that the next one may come as late as the
// loss was long, and the test waits for it.
func (g *guard) onNetworkChange(e netmon.Event) {
	g.retire()
	switch {
	case e.Offline:
		g.path.tunnels.SetOffline(true)
	case e.AddrsChanged:
		g.path.tunnels.SetOffline(false)
	}
	var checked time.Duration
	if within := resumePingTimeout + min(e.OfflineFor, mostPatience); !e.Offline {
		until := time.Now().Add(within + time.Second) // until its outcome is known
		g.checkedUntil.Store(&until)
		if g.path.tunnels.PingAll(within) > 0 {
			checked = within
		}
	}
	g.liveness.moved(checked)
	g.path.forget()
	g.noteFailure()
	if g.everAccepted() {
		now := g.now()
		g.lastUsed.Store(&now)
	}
	g.reconnect.NetworkChanged()
	g.followUp.forget()
	g.askAnew()
}

// networkChanged reports whether this computer's network changed so recently that
// open tunnels may be ending because of it.
func (g *guard) networkChanged() bool {
	until := g.checkedUntil.Load()
	return until != nil && time.Now().Before(*until)
}

// askAnew lets the outcome of the last round of probes stand no longer, nor that
// of one under way serve further requests, and has a clock that was found wrong
// measured.
func (g *guard) askAnew() {
	g.round.Lock()
	defer g.round.Unlock()
	if g.closed {
		return
	}
	g.next = time.Time{}
	g.epoch++
	g.probes.forget()
	if g.measure != nil {
		g.measure.Reset(wokenMeasure)
	}
}
