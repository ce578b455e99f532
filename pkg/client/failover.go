package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/outbound/failover"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// severalDial bounds the path to a server that is not the only one.
const severalDial = 5 * time.Second

// A serverGroup is the guards of the configured servers, and the group that chooses among
// them.
type serverGroup struct {
	*failover.Group
}

func newServerGroup(log *slog.Logger, guards []*guard, waitTimeout time.Duration) serverGroup {
	var all []failover.Server
	for _, g := range guards {
		all = append(all, g)
	}
	f := serverGroup{failover.New(log, all, waitTimeout)}
	for _, g := range guards {
		g.failed = func(v diagnose.Verdict) { f.MarkDown(g, string(v.Cause)) }
		g.packets.Plain().GiveUp = func(err error) bool {
			var v *VerdictError
			return errors.As(err, &v) && f.IsDown(g)
		}
		if g.sessions != nil {
			// The server did not take the request because it is about to stop: it
			// may be back in a moment.
			g.sessions.Again = func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
				now := time.Now()
				g.lastUsed.Store(&now)
				ctx, cancel := context.WithTimeout(ctx, waitTimeout)
				defer cancel()
				return f.DialStream(ctx, dst, first)
			}
		}
	}
	return f
}

// all returns the guards, in order of preference.
func (f serverGroup) all() (guards []*guard) {
	for _, s := range f.Servers() {
		guards = append(guards, s.(*guard))
	}
	return guards
}

// current returns the guard of the server that is used.
func (f serverGroup) current() *guard { return f.Current().(*guard) }

// healthy reports whether the server that is used is known to be healthy.
func (f serverGroup) healthy() bool { return f.current().healthy() }

// named returns the guard of the server with an identity, or that alone has a name;
// nil when there is none.
func (f serverGroup) named(which string) *guard {
	var found []*guard
	for _, g := range f.all() {
		if g.identity == which {
			return g
		}
		if g.Name() == which {
			found = append(found, g)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

// pin makes a server the one that is used first, until another is named.
func (f serverGroup) pin(which string) bool {
	g := f.named(which)
	return g != nil && f.Pin(g)
}

// onNetworkChange has the servers looked at again after a sleep or a change of
// networks.
func (f serverGroup) onNetworkChange(e netmon.Event) {
	f.NetworkChanged()
	for _, g := range f.all() {
		g.onNetworkChange(e)
	}
}

// close ends background work.
func (f serverGroup) close() {
	f.Close()
	for _, g := range f.all() {
		g.close()
	}
	f.Wait()
}

// DialPacket implements transport.PacketDialer.
func (g *guard) DialPacket(ctx context.Context, dst netaddr.Addr) (transport.PacketConn, error) {
	return g.packets.DialPacket(ctx, dst)
}

// Classify implements failover.Server.
func (g *guard) Classify(err error, first []byte) failover.Failure {
	return failover.Failure{NotExecuted: g.notExecuted(err, first), Restarting: g.RecentlyUp() && g.restarting(err, nil)}
}

// Probe implements failover.Server.
func (g *guard) Probe(ctx context.Context) failover.ProbeResult {
	e := g.reconnect.Epoch()
	ctx, done := e.Bound(ctx)
	defer done()
	switch found := g.prober.Ask(ctx, g.account.Mode(), g.account.Offset()); {
	case accepts(found):
		return failover.ProbeAccepted
	case e.Over():
		return failover.ProbeInconclusive
	case found == diagnose.ProbeFailed, found == diagnose.ProbeNotTried:
		return failover.ProbeUnreachable
	}
	return failover.ProbeRejected
}

// notExecuted reports whether a request whose way failed with err cannot have
// been carried out.
func (g *guard) notExecuted(err error, first []byte) bool {
	var v *VerdictError
	if !errors.As(err, &v) || errors.Is(err, transport.ErrPartSent) {
		return false
	}
	early := len(first) > 0 && g.path.early.Load()
	return !early || strings.HasPrefix(string(v.Verdict.Cause), "tcp.") || strings.HasPrefix(string(v.Verdict.Cause), "dns.")
}

// Ready reports whether a request can be sent without looking whether the server
// can be reached.
func (g *guard) Ready() bool {
	return g.healthy() || g.pool.Ready() || g.sessions != nil && g.sessions.HasRoom()
}

// Prepare makes an empty tunnel, which waits in the pool for the request. That
// it fails is reported, unless ctx has ended.
func (g *guard) Prepare(ctx context.Context) error {
	if v, ok := g.breaker.reject(g.now(), g.account.LastAnswer()); ok {
		return g.refuses(v, vmess.ErrNoAnswer).err
	}
	if g.Ready() {
		return nil
	}
	conn, err := g.reach(ctx, nil)
	if err != nil {
		return g.wayFailed(ctx, err)
	}
	g.pool.Put(conn)
	return nil
}
