package netdial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

// RFC 8305 section 8.
const (
	attemptDelay    = 250 * time.Millisecond // until the next address is tried beside those without an answer
	minAttemptDelay = 10 * time.Millisecond  // between two attempts even when the first failed at once
)

const (
	// firstAgain is how long addresses may be silent until they are tried
	// afresh, lastAgain the longest pause then.
	firstAgain = time.Second
	lastAgain  = 4 * time.Second
	// maxAttempts bounds the attempts of one race, whatever a resolver answers.
	maxAttempts = 16
	// maxExtraAttempts bounds the attempts that a Dialer makes beside others to the
	// same addresses, in all its races: they take files.
	maxExtraAttempts = 16
	// never is when no more attempts are made.
	never = time.Hour
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// A hopConn is the connection to the first hop.
type hopConn struct {
	conn   net.Conn
	remote netip.Addr
	addrs  []netip.Addr // among which it is
	stale  error        // why the addresses were remembered ones; nil when they were fresh
}

// dialHop resolves the first hop and connects to the first of its addresses
// that answers. Both families are resolved together; the Resolution Delay of
// RFC 8305 section 3 is the resolver's business.
func (d *Dialer) dialHop(ctx context.Context, way route) (hopConn, error) {
	upstream := way.proxy != nil
	found, err := d.lookup(ctx, way.hop, upstream)
	if err != nil {
		return hopConn{}, err
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	dial := d.DialTCP
	if dial == nil {
		dial = dialTCP
	}
	run := d.begin(StepTCP, way.hop.String(), upstream)
	if upstream && d.isSelf(found.addrs, way.hop.Port()) {
		return hopConn{}, run.end(ctx, ErrUpstreamLoop)
	}
	due, tell := silence(ctx)
	defer due.Stop()
	r := race{
		port: way.hop.Port(), dial: dial, extraAttempts: &d.extraAttempts, addrs: order(found.addrs, last),
		silent: due.C, tell: func() { tell(run.failure(context.DeadlineExceeded)) },
	}
	conn, remote, err := r.run(ctx)
	if err != nil {
		return hopConn{stale: found.stale}, run.end(ctx, err)
	}
	run.facts.Remote = remote
	return hopConn{conn, remote.Addr(), found.addrs, found.stale}, run.end(ctx, nil)
}

func (d *Dialer) isSelf(addrs []netip.Addr, port uint16) bool {
	return d.IsSelf != nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return d.IsSelf(netip.AddrPortFrom(a.Unmap(), port)) })
}

// order sorts addresses for the race (RFC 8305 section 4): last in front if it
// is among them, then by turns of both families, each in the given order.
func order(addrs []netip.Addr, last netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	add := func(ip netip.Addr) {
		switch {
		case slices.Contains(first, ip), slices.Contains(second, ip):
		case len(first) == 0 || first[0].Is4() == ip.Is4():
			first = append(first, ip)
		default:
			second = append(second, ip)
		}
	}
	for _, ip := range addrs {
		if last.IsValid() && ip.Unmap() == last {
			add(last)
		}
	}
	for _, ip := range addrs {
		add(ip.Unmap())
	}
	sorted := make([]netip.Addr, 0, len(first)+len(second))
	for i := range max(len(first), len(second)) {
		sorted = append(sorted, first[min(i, len(first)):min(i+1, len(first))]...)
		sorted = append(sorted, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return sorted[:min(len(sorted), maxAttempts)]
}

// An attempt is one connection that is tried in a race.
type attempt struct {
	to    netip.AddrPort
	fresh bool // beside an earlier one to the same address
	conn  net.Conn
	err   error
}

// A race connects to the first of some addresses that answers.
type race struct {
	port          uint16
	dial          dialFunc
	extraAttempts *atomic.Int32    // attempts beside others, of all races
	silent        <-chan time.Time // when tell is due
	tell          func()

	addrs   []netip.Addr     // not tried yet
	waiting []netip.AddrPort // without an answer so far
	again   []netip.AddrPort // those of them that are due to be tried afresh
	tries   int
	began   time.Time
	due     time.Duration // since then, when all that wait are tried afresh
	errs    []error
	results chan attempt
	over    chan struct{}
}

// run connects as RFC 8305 section 5 says: the next address is tried when
// attemptDelay has passed or an earlier one failed, the first connection wins
// and the others are closed. When all fail the errors are joined, one for each
// address.
//
// Section 5 leaves each attempt to the system, which repeats a SYN after 1, 3
// and 7 s. A host that comes back in between, as from a reboot, would answer
// one at once. So, beyond the RFC, addresses that stay silent are tried afresh
// beside the attempts under way, after 1, 2, 4 and 8 s and every 4 s then:
// with the system's own that makes about one SYN a second for each address.
func (r *race) run(ctx context.Context) (net.Conn, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	r.results, r.over, r.began = make(chan attempt), make(chan struct{}), time.Now()
	defer cancel()
	defer close(r.over)

	next := time.NewTimer(0)
	defer next.Stop()
	var started time.Time
	for len(r.addrs) > 0 || len(r.waiting) > 0 {
		select {
		case <-next.C:
			started = time.Now()
			next.Reset(r.start(ctx))
		case a := <-r.results:
			if a.err == nil {
				return a.conn, a.to, nil
			}
			if r.failed(a) && len(r.addrs) > 0 {
				next.Reset(max(0, minAttemptDelay-time.Since(started)))
			}
		case <-r.silent:
			r.tell()
		case <-ctx.Done():
			for _, to := range r.waiting {
				r.errs = append(r.errs, fmt.Errorf("dial %s: %w", to, context.Cause(ctx)))
			}
			if len(r.errs) == 0 {
				r.errs = append(r.errs, context.Cause(ctx))
			}
			return nil, netip.AddrPort{}, errors.Join(r.errs...)
		}
	}
	return nil, netip.AddrPort{}, errors.Join(r.errs...)
}

// start begins the attempt that is due, if there is one, and returns when the
// next one is.
func (r *race) start(ctx context.Context) time.Duration {
	switch {
	case r.tries == maxAttempts:
		return never
	case len(r.addrs) > 0:
		to := netip.AddrPortFrom(r.addrs[0], r.port)
		r.addrs, r.waiting = r.addrs[1:], append(r.waiting, to)
		r.tries++
		go r.try(ctx, attempt{to: to})
		if len(r.addrs) > 0 {
			return attemptDelay
		}
		return r.rest()
	case len(r.again) == 0:
		r.again = slices.Clone(r.waiting)
	}
	to := r.again[0]
	r.again = r.again[1:]
	if r.extraAttempts.Add(1) > maxExtraAttempts {
		r.extraAttempts.Add(-1)
	} else {
		r.tries++
		go func() {
			defer r.extraAttempts.Add(-1)
			r.try(ctx, attempt{to: to, fresh: true})
		}()
	}
	if len(r.again) > 0 {
		return attemptDelay
	}
	return r.rest()
}

// rest returns how long the next round of fresh attempts is away.
func (r *race) rest() time.Duration {
	r.due += max(firstAgain, min(r.due, lastAgain))
	return max(attemptDelay, r.due-time.Since(r.began))
}

// failed takes note of a failure, and reports whether it is an address's. What
// keeps a fresh attempt from being made here, as a lack of files, is not that.
func (r *race) failed(a attempt) bool {
	same := func(to netip.AddrPort) bool { return to == a.to }
	if !slices.ContainsFunc(r.waiting, same) || a.fresh && transport.CodeOf(a.err) == transport.CodeGeneral {
		return false
	}
	r.errs = append(r.errs, a.err)
	r.waiting = slices.DeleteFunc(r.waiting, same)
	r.again = slices.DeleteFunc(r.again, same)
	return true
}

// try makes one attempt and hands its result to the race, or closes the
// connection when the race is over.
func (r *race) try(ctx context.Context, a attempt) {
	a.conn, a.err = r.dial(ctx, "tcp", a.to.String())
	select {
	case r.results <- a:
	case <-r.over:
		if a.err == nil {
			_ = a.conn.Close()
		}
	}
}

// A listener wants to know that no address answers.
type listener struct {
	after time.Duration
	tell  func(*Error)
}

// listenerKey is the key of a context's [listener].
type listenerKey struct{}

// WithSlowNotice returns a context whose attempts call tell when no address has
// taken their TCP connection for as long as after, with the error that they
// would end with if they gave up now. They go on. It is called from the
// goroutine that connects, once for each TCP step, and must not block.
func WithSlowNotice(ctx context.Context, after time.Duration, tell func(err *Error)) context.Context {
	return context.WithValue(ctx, listenerKey{}, listener{after, tell})
}

// silence returns when it is to be told that nobody answers, if at all.
func silence(ctx context.Context) (due *time.Timer, tell func(*Error)) {
	l, ok := ctx.Value(listenerKey{}).(listener)
	if !ok {
		l.after = never
	}
	due = time.NewTimer(l.after)
	if !ok {
		due.Stop()
	}
	return due, l.tell
}
