package netdial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"vmess-local/pkg/host/errno"
)

// A Step is a part of the way to the server.
type Step uint8

// The steps in the order in which they are taken. DNS is left out when the
// first hop is an IP address, upstream without a proxy, TLS without TLS.
const (
	StepDNS      Step = iota + 1 // resolving the first hop's name
	StepTCP                      // connecting to one of its addresses
	StepUpstream                 // asking the upstream proxy for the server
	StepTLS                      // the TLS handshake with the server
)

// String returns the step's stable short name: "dns", "tcp", "upstream", "tls".
func (s Step) String() string {
	switch s {
	case StepDNS:
		return "dns"
	case StepTCP:
		return "tcp"
	case StepUpstream:
		return "upstream"
	case StepTLS:
		return "tls"
	default:
		return "step?"
	}
}

// A Progress tells that a step began or, when Done, how it ended.
type Progress struct {
	Step     Step
	Addr     string // the name asked for (DNS), else host:port of the far end
	Upstream bool   // the far end is the upstream proxy, not the server
	Done     bool
	Took     time.Duration // when Done: since the step began
	Err      error         // when Done: an *Error, or nil when all is well

	// Facts of a step that ended; those of other steps are zero.
	Addrs      []netip.Addr         // DNS: in the order of the resolver; read only
	Remembered bool                 // DNS: the resolver failed (Err), Addrs are from an earlier answer
	Remote     netip.AddrPort       // TCP: the address that won
	TLS        *tls.ConnectionState // TLS: what was agreed on
}

// A stepRun is a step being taken.
type stepRun struct {
	dialer *Dialer
	began  time.Time
	facts  Progress
}

func (d *Dialer) begin(step Step, addr string, upstream bool) *stepRun {
	r := &stepRun{dialer: d, began: time.Now(), facts: Progress{Step: step, Addr: addr, Upstream: upstream}}
	r.report()
	return r
}

func (r *stepRun) report() {
	if r.dialer.OnStep != nil {
		r.dialer.OnStep(r.facts)
	}
}

// end reports how the step ended and returns err as an *Error, nil for nil.
func (r *stepRun) end(ctx context.Context, err error) error {
	r.facts.Done = true
	r.facts.Took = time.Since(r.began)
	if err != nil {
		r.facts.Err = r.failure(withContext(ctx, err))
	}
	r.report()
	return r.facts.Err
}

// failure is what the step's failure by err is, or would be, at this moment.
func (r *stepRun) failure(err error) *Error {
	return &Error{Step: r.facts.Step, Addr: r.facts.Addr, Upstream: r.facts.Upstream, Took: time.Since(r.began), Err: err}
}

// An Error is the failure of an attempt. It unwraps to what happened:
// *net.DNSError, system errors (one for each address tried), [*UpstreamError],
// [*CertificateError], tls.RecordHeaderError, tls.AlertError, ctx.Err.
type Error struct {
	Step     Step
	Addr     string        // the name asked for (DNS), else host:port of the step's far end
	Upstream bool          // the far end is the upstream proxy, not the server
	Took     time.Duration // since the step began
	Err      error

	// Stale tells why the resolver gave no answer, so that addresses of an
	// earlier one were tried; nil when they were fresh. It is not unwrapped.
	Stale error
}

// Error returns one line.
func (e *Error) Error() string {
	text := e.Step.String()
	if e.Upstream && e.Step != StepUpstream {
		text += " of the upstream proxy"
	}
	text += " " + e.Addr + ": "
	if e.Timeout() {
		text += fmt.Sprintf("timed out after %s: ", e.Took.Round(time.Millisecond))
	}
	text += oneLine(e.Err)
	if e.Stale != nil {
		text += fmt.Sprintf(" (at an address of an earlier answer: %s)", oneLine(e.Stale))
	}
	return text
}

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the time ran out, for one of the addresses at least.
// An attempt that was cancelled did not run out of time.
func (e *Error) Timeout() bool {
	if errors.Is(e.Err, context.Canceled) {
		return false
	}
	return errno.IsTimeout(e.Err)
}

// blameStale notes in an attempt's error that its addresses were remembered ones.
func blameStale(err, stale error) error {
	var e *Error
	if stale != nil && errors.As(err, &e) {
		e.Stale = stale
	}
	return err
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// withContext adds to err why ctx ended, if it did: what an interrupted call
// returns need not tell. That the interruption closed the connection is no news.
// A socket's deadline, which net.Dialer takes from ctx, may fire just before it.
func withContext(ctx context.Context, err error) error {
	ended, cause := ctx.Err(), context.Cause(ctx)
	if ended == nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		ended, cause = context.DeadlineExceeded, context.DeadlineExceeded
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		err = cause
	case !errors.Is(err, cause):
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if !errors.Is(err, ended) {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	return err
}
