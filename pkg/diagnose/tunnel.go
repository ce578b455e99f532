package diagnose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/config"
	"vmess-local/pkg/host/errno"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/relay"
)

// TunnelFacts are how an established connection ended.
type TunnelFacts struct {
	Err      error         // of the relay or the stream
	Age      time.Duration // since it was established
	IdleFor  time.Duration // since the last byte of payload either way
	Up, Down int64         // bytes of payload
	Answered bool          // the server answered the request authentically
	// OthersEnded is how many other tunnels ended at the same moment.
	OthersEnded int
	// ServerRefusesNow: a connection attempt made since is refused.
	ServerRefusesNow bool
	// SeenBefore is how many earlier tunnels ended after the same idle time, in
	// the same manner. Where it may have been the destination, only those to
	// others count.
	SeenBefore int
	// Ambiguous: the server ends a tunnel alike when the destination breaks off.
	Ambiguous bool
	// Core: the server is V2Ray or Xray.
	Core bool
	// NetworkChanged: this computer slept or its network changed, and whether the
	// tunnel had outlived that was not known yet.
	NetworkChanged bool
}

// Tunnel judges the end of an established connection. ok is false for an
// orderly end, for one that this side or the destination wanted, and for
// vmess.ErrNoAnswer, which [Account] judges.
func Tunnel(f TunnelFacts, s ServerContext) (v Verdict, ok bool) {
	if Ordinary(f.Err) || errors.Is(f.Err, vmess.ErrUnmarked) && !connIdle(f) || maybeDestination(f) {
		return Verdict{}, false
	}
	v = tunnel(f, s)
	v.Evidence = append(v.Evidence,
		fmt.Sprintf("after %s, idle for %s, %d bytes up and %d down", spoken(f.Age), spoken(f.IdleFor), f.Up, f.Down),
		clean(f.Err.Error(), 200))
	return v, true
}

// Ordinary reports whether a connection ended in order, or because this side
// wanted it, or in a way that is not the tunnel's.
func Ordinary(err error) bool {
	var side *relay.Error
	return err == nil || err == io.EOF || errors.Is(err, context.Canceled) || errors.Is(err, relay.ErrIdle) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, vmess.ErrNoAnswer) ||
		errors.As(err, &side) && side.Side == relay.Local
}

// noChance is how many tunnels to other destinations must end at the same moment for
// it to be no coincidence.
const noChance = 3

// maybeDestination reports whether an end is as well explained by the destination
// alone.
func maybeDestination(f TunnelFacts) bool {
	return f.Ambiguous && !f.ServerRefusesNow && f.OthersEnded < noChance && (f.SeenBefore == 0 || f.IdleFor < leastIdle) &&
		(isReset(f.Err) || errors.Is(f.Err, io.ErrUnexpectedEOF))
}

// LeastConnIdle is the shortest silence that may be V2Ray's timer's where its
// length is not known.
const LeastConnIdle = 10 * time.Second

// connIdle recognises V2Ray's timer of that name among the reasons for which a
// server gives a stream up in order: by its usual length, or because it comes
// again. The others are failures of the destination's; V2Ray marks its ends.
func connIdle(f TunnelFacts) bool {
	cut, found := idleTimerOf(f.IdleFor)
	return found && cut.core || f.Core && f.SeenBefore > 0 && f.IdleFor >= LeastConnIdle
}

func tunnel(f TunnelFacts, s ServerContext) Verdict {
	var closed *wsconn.CloseError
	switch {
	case errors.Is(f.Err, vmess.ErrBadResponse):
		return badResponse(s)
	case f.ServerRefusesNow:
		v := serverGone(Certain, s.server()+" went down: the connection ended and new ones are refused",
			"start the service on the server again, or wait for it to restart")
		if f.OthersEnded > 0 {
			v.Basis = plural(f.OthersEnded+1, "connection") + " ended"
		}
		return v
	case errors.Is(f.Err, vmess.ErrBadChunk), errors.Is(f.Err, wsconn.ErrBadFrame):
		return tunnelReset(s, "corrupted data arrived on the connection to "+s.server()+": something on the path modifies it", Likely)
	case errors.Is(f.Err, wsconn.ErrPingTimeout) && !f.NetworkChanged:
		return Silent(s)
	case errors.Is(f.Err, wsconn.ErrPingTimeout), errno.IsTimeout(f.Err):
		return serverGone(Likely, s.server()+" stopped answering: the server or the network path to it is down",
			"check this computer's network connection; new connections are made automatically")
	case looksIdle(f):
		return idleCut(f, s)
	case f.OthersEnded > 0:
		return serverGone(Likely, fmt.Sprintf("%s closed %s at the same moment: it was restarted, or the network changed",
			s.server(), plural(f.OthersEnded+1, "connection")), "if it happens once, ignore it; if it recurs, check the server's log")
	case errors.As(f.Err, &closed) && closed.Code == 1012: // service restart
		return serverGone(Certain, s.server()+" is restarting", "wait a moment: new connections are made automatically")
	case errors.As(f.Err, &closed):
		return tunnelReset(s, fmt.Sprintf("%s closed the connection with WebSocket code %d", s.server(), closed.Code), Certain)
	case !f.Answered:
		return tunnelReset(s, "the connection to "+s.server()+" was "+how(f.Err)+" right at the start, before any answer", Likely)
	}
	return tunnelReset(s, fmt.Sprintf("the connection to %s was %s while in use, after %s", s.server(), how(f.Err), spoken(f.Age)), Likely)
}

func how(err error) string {
	if isReset(err) {
		return "reset"
	}
	return "cut"
}

func serverGone(c Confidence, sentence, fix string) Verdict {
	return Verdict{Cause: TunnelServerGone, Confidence: c, Sentence: sentence, Fix: fix}
}

func tunnelReset(s ServerContext, sentence string, c Confidence) Verdict {
	return Verdict{
		Cause: TunnelReset, Confidence: c, Sentence: sentence,
		Fix: "if it happens once, retry; if often, check the server's log and middleboxes on the path to " + clean(s.Address, 50) + " (CDN, antivirus, router)",
	}
}

const raiseConnIdle = `raise "connIdle" in the policy of the server's V2Ray`

// A idleTimer is something on the way that ends idle connections.
type idleTimer struct {
	after time.Duration
	who   string
	fix   string
	core  bool // V2Ray itself, which pings do not keep awake
}

func idleTimers() []idleTimer {
	return []idleTimer{
		{60 * time.Second, "nginx's proxy_read_timeout is 60 s", "raise proxy_read_timeout in nginx", false},
		{100 * time.Second, "Cloudflare and other CDNs allow 100 s", "", false},
		{300 * time.Second, "V2Ray's connIdle is 300 s", raiseConnIdle, true},
		{600 * time.Second, "V2Ray closes tunnels after 600 s (twice its connIdle)", raiseConnIdle, true},
	}
}

// idleTimerOf finds who is known to cut after such a silence: the timers of
// servers are exact, and the network adds less than a second.
func idleTimerOf(idle time.Duration) (idleTimer, bool) {
	for _, c := range idleTimers() {
		if d := idle - c.after; d > -time.Second && d < 1500*time.Millisecond {
			return c, true
		}
	}
	return idleTimer{}, false
}

// leastIdle is the shortest silence that may be blamed for an end.
const leastIdle = time.Second

func looksIdle(f TunnelFacts) bool {
	var closed *wsconn.CloseError
	switch {
	case errors.As(f.Err, &closed):
		return false
	case f.SeenBefore == 0 && f.OthersEnded > 0:
		_, found := idleTimerOf(f.IdleFor)
		return found
	}
	return f.IdleFor >= leastIdle
}

func idleCut(f TunnelFacts, s ServerContext) Verdict {
	c, found := idleTimerOf(f.IdleFor)
	v := Verdict{
		Cause: TunnelIdleCut, Confidence: Likely,
		Sentence: fmt.Sprintf("something on the path to %s closes connections that are idle for %s", s.server(), spoken(f.IdleFor)),
	}
	switch {
	case found:
		v.Sentence = fmt.Sprintf("the connection to %s was closed after %s of silence: %s", s.server(), spoken(c.after), c.who)
	case errors.Is(f.Err, vmess.ErrUnmarked):
		return ownConnIdle(f, s)
	case f.SeenBefore == 0:
		v.Sentence = fmt.Sprintf("the connection to %s was closed after %s of silence", s.server(), spoken(f.IdleFor))
	}
	v.Fix = keepAliveFix(c, f.IdleFor, s)
	if f.SeenBefore > 0 {
		v.Confidence, v.Basis = Certain, "recurring"
	} else if !found {
		v.Fix = "if it happens once, ignore it; if it recurs: " + v.Fix
	}
	return v
}

// ownConnIdle names a timer of V2Ray's that somebody has set. One destination
// alone may have such a limit of its own, which it enforces by resets.
func ownConnIdle(f TunnelFacts, s ServerContext) Verdict {
	v := Verdict{
		Cause: TunnelIdleCut, Confidence: Likely, Basis: "recurring",
		Sentence: fmt.Sprintf("V2Ray on %s closes connections after %s of silence, whatever the destination: that is its connIdle", s.server(), spoken(f.IdleFor)),
	}
	if f.SeenBefore > 1 {
		v.Confidence = Certain
	}
	v.Fix = keepAliveFix(idleTimer{fix: raiseConnIdle, core: true}, f.IdleFor, s)
	return v
}

// keepAliveFix says how to keep a connection from being cut after such a silence.
func keepAliveFix(c idleTimer, idle time.Duration, s ServerContext) string {
	switch {
	case c.core:
		return c.fix + ", or let the application send something from time to time"
	case s.Ping > 0 && s.Ping < idle:
		return "pings do not help here: " + first(c.fix, "raise the idle timeout of the middlebox, or avoid it")
	}
	every := min(30*time.Second, max(time.Second, (idle/2).Truncate(time.Second)))
	ping := s.set("ws.ping", strconv.Quote(config.Duration(every).String()))
	if c.fix != "" {
		return ping + ", or " + c.fix
	}
	return ping
}
