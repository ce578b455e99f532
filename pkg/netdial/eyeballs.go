package netdial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// RFC 8305 section 8.
const (
	attemptDelay    = 250 * time.Millisecond // until the next address is tried beside those without an answer
	minAttemptDelay = 10 * time.Millisecond  // between two attempts even when the first failed at once
)

// maxAddresses bounds the attempts of one race, whatever a resolver answers.
const maxAddresses = 16

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// A landing is the connection to the first hop.
type landing struct {
	conn   net.Conn
	remote netip.Addr
	addrs  []netip.Addr // among which it is
	stale  error        // why the addresses were remembered ones; nil when they were fresh
}

// dialHop resolves the first hop and connects to the first of its addresses
// that answers. Both families are resolved together; the Resolution Delay of
// RFC 8305 section 3 is the resolver's business.
func (d *Dialer) dialHop(ctx context.Context, way route) (landing, error) {
	upstream := way.proxy != nil
	found, err := d.lookup(ctx, way.hop, upstream)
	if err != nil {
		return landing{}, err
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	dial := d.DialTCP
	if dial == nil {
		dial = dialTCP
	}
	run := d.begin(StepTCP, way.hop.String(), upstream)
	conn, remote, err := race(ctx, order(found.addrs, last), way.hop.Port(), dial)
	if err != nil {
		return landing{stale: found.stale}, run.end(ctx, err)
	}
	run.facts.Remote = remote
	return landing{conn, remote.Addr(), found.addrs, found.stale}, run.end(ctx, nil)
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
	return sorted[:min(len(sorted), maxAddresses)]
}

// An attempt is one address's share of the race.
type attempt struct {
	to   netip.AddrPort
	conn net.Conn
	err  error
}

// race connects to addrs as RFC 8305 section 5 says: the next one starts when
// attemptDelay has passed or an earlier one failed, the first connection wins
// and the others are closed. When all fail the errors are joined.
func race(ctx context.Context, addrs []netip.Addr, port uint16, dial dialFunc) (net.Conn, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	defer cancel()
	defer close(over)

	var (
		results = make(chan attempt)
		waiting []netip.AddrPort
		errs    []error
		started time.Time
		next    = time.NewTimer(0)
	)
	defer next.Stop()
	for len(addrs) > 0 || len(waiting) > 0 {
		select {
		case <-next.C:
			to := netip.AddrPortFrom(addrs[0], port)
			addrs, waiting, started = addrs[1:], append(waiting, to), time.Now()
			go try(ctx, to, dial, results, over)
			if len(addrs) > 0 {
				next.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, r.to, nil
			}
			errs = append(errs, r.err)
			waiting = slices.DeleteFunc(waiting, func(to netip.AddrPort) bool { return to == r.to })
			if len(addrs) > 0 {
				next.Reset(max(0, minAttemptDelay-time.Since(started)))
			}
		case <-ctx.Done():
			for _, to := range waiting {
				errs = append(errs, fmt.Errorf("dial %s: %w", to, context.Cause(ctx)))
			}
			if len(errs) == 0 {
				errs = append(errs, context.Cause(ctx))
			}
			return nil, netip.AddrPort{}, errors.Join(errs...)
		}
	}
	return nil, netip.AddrPort{}, errors.Join(errs...)
}

// try makes one attempt and hands its result to the race, or closes the
// connection when the race is over.
func try(ctx context.Context, to netip.AddrPort, dial dialFunc, results chan<- attempt, over <-chan struct{}) {
	conn, err := dial(ctx, "tcp", to.String())
	select {
	case results <- attempt{to, conn, err}:
	case <-over:
		if err == nil {
			_ = conn.Close()
		}
	}
}
