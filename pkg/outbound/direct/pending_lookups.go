package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// Bounds of what one association makes the resolver do and keeps of it, and
// for how long.
const (
	maxNames   = 64 // remembered
	maxLookups = 8  // at one time
	maxWaiting = 16 // datagrams that wait for one name
	maxHeld    = 64 << 10

	nameHolds    = time.Minute     // an answer
	failureHolds = 5 * time.Second // there being none
)

var (
	errManyNames   = fmt.Errorf("%w: too many names at one time", transport.ErrPacketDropped)
	errManyWaiting = fmt.Errorf("%w: too many datagrams wait for a name", transport.ErrPacketDropped)
)

// pendingLookups resolves the names that one association's datagrams go to.
type pendingLookups struct {
	cone    *fullConeConn
	ctx     context.Context // of the lookups
	cancel  context.CancelFunc
	mu      sync.Mutex
	known   map[string]*name
	lookups int
	held    int // bytes of waiting datagrams
}

// A name is what is known of one.
type name struct {
	pending bool // being looked up
	until   time.Time
	ip      netip.Addr
	err     error // when there is no address
	waiting []waiting
}

// waiting is a datagram that waits for its name.
type waiting struct {
	p    []byte
	port uint16
}

func (n *pendingLookups) init(c *fullConeConn) {
	n.cone = c
	n.ctx, n.cancel = context.WithCancel(context.Background())
}

// stop ends the lookups, without waiting for them.
func (n *pendingLookups) stop() { n.cancel() }

// write sends a datagram to a name's address, now or once it is known.
func (n *pendingLookups) write(p []byte, to netaddr.Addr) error {
	n.mu.Lock()
	e, err := n.entry(to.Host())
	if err == nil && e.pending {
		err = n.hold(e, p, to.Port())
		n.mu.Unlock()
		return err
	}
	n.mu.Unlock()
	switch {
	case err != nil:
		return err
	case e.err != nil: // an entry that is not pending does not change
		return e.err
	}
	return n.cone.send(p, netip.AddrPortFrom(e.ip, to.Port()))
}

// entry returns what is known of a name; a lookup is begun where that is
// nothing, or too old.
func (n *pendingLookups) entry(host string) (*name, error) {
	if e := n.known[host]; e != nil && (e.pending || time.Now().Before(e.until)) {
		return e, nil
	}
	if n.lookups >= maxLookups || n.ctx.Err() != nil {
		return nil, errManyNames
	}
	n.forget()
	if n.known == nil {
		n.known = map[string]*name{}
	}
	e := &name{pending: true}
	n.known[host] = e
	n.lookups++
	go n.lookUp(host)
	return e, nil
}

// forget makes room for one more name: the one whose time is over first goes.
func (n *pendingLookups) forget() {
	if len(n.known) < maxNames {
		return
	}
	var oldest string
	for host, e := range n.known {
		if !e.pending && (oldest == "" || e.until.Before(n.known[oldest].until)) {
			oldest = host
		}
	}
	delete(n.known, oldest)
}

// hold keeps a copy of a datagram until its name is known.
func (n *pendingLookups) hold(e *name, p []byte, port uint16) error {
	if len(e.waiting) == maxWaiting || n.held+len(p) > maxHeld {
		return errManyWaiting
	}
	n.held += len(p)
	e.waiting = append(e.waiting, waiting{append([]byte(nil), p...), port})
	return nil
}

// lookUp resolves a name and sends what waited for it, in order: until the last
// of it is sent, more may come to wait.
func (n *pendingLookups) lookUp(host string) {
	ip, err := n.cone.dialer.resolve(n.ctx, host)
	for {
		n.mu.Lock()
		e := n.known[host]
		batch := e.waiting
		e.waiting = nil
		for _, w := range batch {
			n.held -= len(w.p)
		}
		if len(batch) == 0 || n.ctx.Err() != nil {
			n.known[host] = resolved(ip, err)
			n.lookups--
			n.mu.Unlock()
			n.cone.lost.Add(int64(len(batch)))
			return
		}
		n.mu.Unlock()
		for _, w := range batch {
			if err != nil || n.cone.send(w.p, netip.AddrPortFrom(ip, w.port)) != nil {
				n.cone.lost.Add(1)
			}
		}
	}
}

func resolved(ip netip.Addr, err error) *name {
	if err != nil {
		return &name{err: err, until: time.Now().Add(failureHolds)}
	}
	return &name{ip: ip, until: time.Now().Add(nameHolds)}
}

// resolve returns the first address of a name that the rules allow. Its errors
// concern the datagrams to that name.
func (d *Dialer) resolve(ctx context.Context, host string) (netip.Addr, error) {
	if err := noSuchName(host); err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", transport.ErrPacketDropped, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	r := d.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	ips, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", transport.ErrPacketDropped, err)
	}
	err = errors.New("no addresses")
	for _, ip := range ips {
		if err = d.allow(ip); err == nil {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: %w", transport.ErrPacketDropped, err)
}

// noSuchName answers for names of which nobody needs to be asked (RFC 6761
// section 6.4).
func noSuchName(host string) error {
	last := strings.TrimSuffix(host, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	if !strings.EqualFold(last, "invalid") {
		return nil
	}
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
