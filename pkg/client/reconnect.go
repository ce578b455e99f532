package client

import (
	"context"
	"errors"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/outbound/reconnect"
	"vmess-local/pkg/transport"
)

const (
	// recentlyUpFor is how long ago a server must have worked for a request to
	// wait for its return, within limits.dial.
	recentlyUpFor = 2 * time.Minute
	// slowNotice is how long a server that worked a moment ago may leave a TCP
	// connection without an answer until that is reported: that long takes a SYN
	// that was lost twice.
	slowNotice = 2500 * time.Millisecond
)

// RecentlyUp reports whether the server worked a moment ago. A sleep in between does
// not count: what was left open is there in the morning, and its server, too.
func (g *guard) RecentlyUp() bool {
	at := g.account.LastAnswer()
	if worked := g.lastUsed.Load(); worked != nil && worked.After(at) {
		at = *worked
	}
	return g.now().Sub(at) < recentlyUpFor
}

// waitForReady reports whether a request waits here for the server's return: where
// there is no other server and this one worked a moment ago.
func (g *guard) waitForReady() bool { return g.alone && g.RecentlyUp() }

// knownUp reports whether the server is known to be there.
func (g *guard) knownUp() bool {
	doubted := time.Unix(0, g.lastFailure.Load())
	if lately := g.now().Add(-healthyFor); lately.After(doubted) {
		doubted = lately
	}
	return g.healthy() || g.reconnect.ReachedSince(doubted)
}

// reach makes a tunnel. Where the server went away a moment ago that is told
// at once, and then it waits for its return within limits.dial.
func (g *guard) reach(ctx context.Context, first []byte) (conn transport.StreamConn, err error) {
	limited, cancel := context.WithTimeout(ctx, g.dialTime)
	defer cancel()
	start := g.now()
	for !g.waitForReady() {
		e := g.reconnect.Epoch()
		conn, err = g.connect(limited, e, first)
		if err != nil && e.Over() && limited.Err() == nil && unsent(err, first) {
			continue // on the new network
		}
		if err == nil {
			g.reconnect.Reset()
		}
		return conn, err
	}
	err = g.reconnect.Do(ctx, g.dialTime-g.now().Sub(start), g.knownUp, func(ctx context.Context, noAnswer func(error)) (found reconnect.Outcome, again bool, err error) {
		ctx = netdial.WithSlowNotice(ctx, slowNotice, func(err *netdial.Error) { noAnswer(err) })
		conn, err = g.link.ConnectStream(ctx, first)
		switch {
		case err != nil && ctx.Err() != nil:
			return reconnect.Canceled, unsent(err, first), err
		case err != nil && g.restarting(err, nil):
			return reconnect.Unreachable, g.restarting(err, first), err
		}
		return reconnect.OK, false, err
	}, func(err, told error) error { return g.news(ctx, err, told) })
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// connect makes one attempt to reach the server, within an epoch.
func (g *guard) connect(ctx context.Context, e *reconnect.Epoch, first []byte) (transport.StreamConn, error) {
	ctx, done := e.Bound(ctx)
	defer done()
	return g.link.ConnectStream(ctx, first)
}

// unsent reports whether a request whose way was given up with err cannot have
// been carried out: it travels behind TCP and TLS.
func unsent(err error, first []byte) bool {
	var below *netdial.Error
	return len(first) == 0 || errors.As(err, &below)
}

// news tells a failure of the way, unless it has the cause that the request told
// before, and returns what was told last.
func (g *guard) news(ctx context.Context, err, told error) error {
	var before *VerdictError
	if errors.As(told, &before) {
		if v, _ := diagnose.Connect(err, g.setting, diagnose.ConnectFacts{}); v.Cause == before.Verdict.Cause {
			return told
		}
	}
	return g.wayFailed(ctx, err)
}

// ahead makes a tunnel for which nobody waits: at once or not at all.
func (g *guard) ahead(ctx context.Context, first []byte) (conn transport.StreamConn, err error) {
	if !g.waitForReady() {
		return g.connect(ctx, g.reconnect.Epoch(), first)
	}
	made := g.reconnect.Try(ctx, g.knownUp(), func(ctx context.Context) reconnect.Outcome {
		if conn, err = g.link.ConnectStream(ctx, first); err != nil {
			g.noteFailure()
			return reconnect.Canceled // requests find out, and report it
		}
		return reconnect.OK
	})
	if !made {
		return nil, errNotNow
	}
	return conn, err
}

var errNotNow = errors.New("nobody knows whether the server is there")

// restarting reports whether err is what a server gives that restarts, or what
// stands before it, to a request that cannot have been carried out.
func (g *guard) restarting(err error, first []byte) bool {
	if len(first) > 0 && errors.Is(err, transport.ErrPartSent) {
		return false
	}
	v, _ := diagnose.Connect(err, g.setting, diagnose.ConnectFacts{})
	switch v.Cause {
	case diagnose.TCPRefused, diagnose.TCPReset, diagnose.TCPUnreachable, diagnose.TCPTimeout:
		return true
	case diagnose.WSBadGateway, diagnose.WSReset:
		return len(first) == 0 || !g.path.early.Load()
	}
	return false
}
