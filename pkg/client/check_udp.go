package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/netaddr"
)

// Ports whose servers answer a question that anybody may ask, by TCP as well.
const (
	portDNS  = 53
	portSTUN = 3478
)

// questionAgain is when a datagram that may have been lost is sent again.
const questionAgain = time.Second

// otherAnswer is how long after the answer by the plain form one by another may
// come.
const otherAnswer = 2 * time.Second

// dnsQuestion asks for the name servers of the root (RFC 1035 section 4.1).
func dnsQuestion() []byte {
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	return append(id[:], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1)
}

// stunQuestion is a binding request (RFC 8489 section 5).
func stunQuestion() []byte {
	q := make([]byte, 20)
	copy(q, []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
	_, _ = rand.Read(q[8:]) // never fails
	return q
}

// streamQuestion is what a destination is asked in a stream: at a port of
// which nothing is known, for a web page.
func streamQuestion(to netaddr.Addr) []byte {
	switch to.Port() {
	case portDNS:
		q := dnsQuestion()
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	case portSTUN:
		return stunQuestion()
	}
	return []byte("HEAD / HTTP/1.1\r\nHost: " + to.Host() + "\r\nConnection: close\r\n\r\n")
}

// packetQuestion is what a destination is asked in a datagram; nil where
// nothing is known that it would answer.
func packetQuestion(to netaddr.Addr) []byte {
	switch to.Port() {
	case portDNS:
		return dnsQuestion()
	case portSTUN:
		return stunQuestion()
	}
	return nil
}

// datagrams finds out how UDP travels and says what that means. That takes a
// destination that answers: without one, a server that understands a form and
// one that takes it for something else look the same.
func (k *checker) datagrams(ctx context.Context, cfg *config.Client, target netaddr.Addr) {
	form := k.guard.packets.decided()
	switch {
	case cfg.UDP.Mode == "off":
		k.report.Add(diagnose.StepUDP, diagnose.Skip, 0, `"udp.mode" is "off"`)
		return
	case !target.IsValid() || packetQuestion(target) == nil:
		if kind := k.guard.prober.Kind(); form == packetsUnknown && (kind == vmess.KindNative || kind == vmess.KindSingBox) {
			form = packetsXUDP
		}
		k.report.Add(diagnose.StepUDP, diagnose.Skip, 0, "not tried (--target HOST:53 or HOST:3478 does); by "+form.String()+": "+form.natBehavior())
		return
	}
	start := time.Now()
	best, misled := k.bestForm(ctx, form, target)
	took := time.Since(start)
	switch {
	case best != packetsUnknown:
		k.report.Add(diagnose.StepUDP, diagnose.Pass, took, target.String()+" answers by "+best.String()+": "+best.natBehavior())
	case misled:
		k.report.Add(diagnose.StepUDP, diagnose.Fail, took,
			`the server does not understand XUDP: all datagrams go to the first destination; "udp.mode": "auto" uses none that it does not understand`)
	default:
		k.report.Add(diagnose.StepUDP, diagnose.Fail, took, "no datagram came back from "+target.String())
		if k.report.Verdict.IsZero() {
			k.report.Verdict = diagnose.Destination(diagnose.DestinationFacts{
				End: diagnose.StillSilent, After: took, Account: diagnose.ProbeAccepted, To: target, Show: true,
			}, k.guard.setting)
		}
	}
}

// bestForm asks the target by the configured form, or by all where none is,
// and returns the best that was answered. misled tells that XUDP was answered
// by a server that does not understand it.
func (k *checker) bestForm(ctx context.Context, only packetEncoding, target netaddr.Addr) (best packetEncoding, misled bool) {
	ctx, cancel := context.WithTimeout(ctx, k.guard.dialTime+checkAnswer)
	defer cancel()
	forms := []packetEncoding{packetsPlain, packetsAddr, packetsXUDP}
	if only != packetsUnknown {
		forms = []packetEncoding{only}
	}
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	for _, f := range forms {
		all.Go(func() {
			answered, full := k.guard.packets.ask(ctx, f, target)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !answered:
				return
			case f == packetsXUDP && !full:
				misled = true
				return
			case f == packetsPlain && len(forms) > 1:
				soon := time.AfterFunc(otherAnswer, cancel)
				context.AfterFunc(ctx, func() { soon.Stop() })
			}
			best = max(best, f)
		})
	}
	all.Wait()
	return best, misled
}
