package netdial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"vmess-local/pkg/transport/netaddr"
)

// A Resolver turns a name into addresses, best first. *net.Resolver is one. It
// must return when ctx ends.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// rememberedWait is how long the resolver may take when addresses of an earlier
// answer are at hand.
const rememberedWait = 2 * time.Second

// missingFor is how long a resolver may say that there is no such name until
// it is believed: those of networks that are being joined, or that want a login
// first, say so of every name. Afterwards the name is taken to be gone.
const missingFor = 10 * time.Minute

// An answer is where a host is to be found.
type answer struct {
	addrs []netip.Addr
	stale error // why addrs are remembered ones; nil when they are fresh
}

// lookup resolves the first hop. An IP address stays as it is. Where the
// resolver fails, the answer is the last one that led all the way.
func (d *Dialer) lookup(ctx context.Context, hop netaddr.Addr, upstream bool) (answer, error) {
	if !hop.IsName() {
		return answer{addrs: []netip.Addr{hop.IP()}}, nil
	}
	known := d.remembered()
	run := d.begin(StepDNS, hop.Host(), upstream)
	addrs, err := d.ask(ctx, hop.Host(), len(known) > 0)
	switch gone := d.gone(err); {
	case err == nil:
		run.facts.Addrs = addrs
		return answer{addrs: addrs}, run.end(ctx, nil)
	case len(known) > 0 && !gone && ctx.Err() == nil:
		run.facts.Addrs, run.facts.Remembered = known, true
		return answer{addrs: known, stale: run.end(ctx, err)}, nil
	default:
		return answer{}, run.end(ctx, err)
	}
}

// ask queries the resolver, which gets less time when there is a way to go on
// without it.
func (d *Dialer) ask(ctx context.Context, host string, hurry bool) ([]netip.Addr, error) {
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, min(rememberedWait, d.timeout()/2))
		defer cancel()
	}
	var resolver Resolver = net.DefaultResolver
	if d.Resolver != nil {
		resolver = d.Resolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, withContext(ctx, err)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "the answer holds no address", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (d *Dialer) remembered() []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known
}

// gone reports whether, with err, the resolver has said for so long that there
// is no such name that it is believed.
func (d *Dialer) gone(err error) bool {
	var dns *net.DNSError
	missing := errors.As(err, &dns) && dns.IsNotFound
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.missing = time.Time{}
	case missing && d.missing.IsZero():
		d.missing = time.Now()
	}
	return missing && time.Since(d.missing) > missingFor
}
