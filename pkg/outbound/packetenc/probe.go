package packetenc

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// probePause is how long no question of our own is sent after one that found
	// no full cone.
	probePause = 10 * time.Minute
	// answerTimeout is how long a destination may take to answer a question.
	answerTimeout = 5 * time.Second
	// resendAfter is when a datagram that may have been lost is sent again.
	resendAfter = time.Second
	// otherTimeout is how long after the answer to a plain question one by another
	// encoding may come.
	otherTimeout = 2 * time.Second
)

// Ports whose servers answer a question that anybody may ask.
const (
	portDNS  = 53
	portSTUN = 3478
)

// Question returns a datagram that a destination answers, judging by its port;
// nil where none is known.
func Question(to netaddr.Addr) []byte {
	switch to.Port() {
	case portDNS: // the name servers of the root (RFC 1035 section 4.1)
		var id [2]byte
		_, _ = rand.Read(id[:]) // never fails
		return append(id[:], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1)
	case portSTUN: // a binding request (RFC 8489 section 5)
		q := make([]byte, 20)
		copy(q, []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
		_, _ = rand.Read(q[8:]) // never fails
		return q
	}
	return nil
}

// probeResolver begins to find out which encodings the server understands by a
// question to a resolver, unless that was done a while ago.
func (d *Dialer) probeResolver(resolver netaddr.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.closed || now.Before(d.nextProbe) {
		return
	}
	d.nextProbe = now.Add(probePause)
	d.probing.Go(func() {
		e := d.fullCone(resolver)
		if e == Unknown {
			return
		}
		d.mu.Lock()
		d.probed = e
		d.mu.Unlock()
		d.log(d.Encoding(), true)
	})
}

// fullCone asks a resolver by XUDP and, where its answer comes without its source
// or not at all, by packetaddr. It returns what was answered; Unknown if neither
// was.
func (d *Dialer) fullCone(resolver netaddr.Addr) Encoding {
	if _, full := d.ask(d.ctx, XUDP, resolver); full {
		return XUDP
	}
	if resolver.IsName() {
		return Unknown
	}
	if answered, _ := d.ask(d.ctx, PacketAddr, resolver); answered {
		return PacketAddr
	}
	return Unknown
}

// Probe asks a destination that answers a [Question] by the encoding that is
// decided, or by all at once if none is. It returns the best that was answered,
// Unknown if none was. misled reports that XUDP was answered by a server that does
// not understand it.
func (d *Dialer) Probe(ctx context.Context, target netaddr.Addr) (best Encoding, misled bool) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.DialTimeout+answerTimeout)
	defer cancel()
	candidates := []Encoding{Plain, PacketAddr, XUDP}
	if e := d.Decided(); e != Unknown {
		candidates = []Encoding{e}
	}
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	for _, e := range candidates {
		all.Go(func() {
			answered, full := d.ask(ctx, e, target)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !answered:
				return
			case e == XUDP && !full:
				misled = true
				return
			case e == Plain && len(candidates) > 1:
				soon := time.AfterFunc(otherTimeout, cancel)
				context.AfterFunc(ctx, func() { soon.Stop() })
			}
			best = max(best, e)
		})
	}
	all.Wait()
	return best, misled
}

// ask asks a destination by an encoding. full reports that the answer came with
// its true source, as far as the encoding shows it.
func (d *Dialer) ask(ctx context.Context, e Encoding, target netaddr.Addr) (answered, full bool) {
	conn, err := d.dialProbe(ctx, e, target)
	if err != nil {
		return false, false
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	question := Question(target)
	if conn.WritePacket(question, target) != nil {
		return false, false
	}
	again := time.AfterFunc(resendAfter, func() { _ = conn.WritePacket(question, target) })
	defer again.Stop()
	bound := time.AfterFunc(answerTimeout, func() { _ = conn.Close() })
	defer bound.Stop()
	b, data, _, err := transport.ReadPacketPooled(conn)
	if err != nil {
		return false, false
	}
	defer b.Release()
	x, ok := conn.(interface{ FullCone() bool })
	return len(data) > 0, ok && x.FullCone()
}

// dialProbe opens one request of an encoding; a plain one is bound to dst.
func (d *Dialer) dialProbe(ctx context.Context, e Encoding, dst netaddr.Addr) (transport.PacketConn, error) {
	switch e {
	case XUDP:
		return d.xudp(d.opt.Prober).DialPacket(ctx, dst)
	case PacketAddr:
		return d.opt.Prober.DialPacketAddr(ctx)
	}
	return d.opt.Prober.DialPacket(ctx, dst)
}
