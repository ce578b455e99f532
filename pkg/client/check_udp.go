package client

import (
	"context"
	"encoding/binary"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/outbound/packetenc"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/netaddr"
)

// portDNS is the port of resolvers, which answer by TCP and UDP.
const portDNS = 53

// streamQuestion is what a destination is asked in a stream: at a port of
// which nothing is known, for a web page.
func streamQuestion(to netaddr.Addr) []byte {
	switch q := packetenc.Question(to); {
	case q == nil:
		return []byte("HEAD / HTTP/1.1\r\nHost: " + to.Host() + "\r\nConnection: close\r\n\r\n")
	case to.Port() == portDNS: // RFC 1035 section 4.2.2
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	default:
		return q
	}
}

// datagrams finds out how UDP travels and says what that means. That takes a
// destination that answers: without one, a server that understands a form and
// one that takes it for something else look the same.
func (k *checker) datagrams(ctx context.Context, cfg *config.Client, target netaddr.Addr) {
	form := k.guard.packets.Decided()
	switch {
	case cfg.UDP.Mode == "off":
		k.report.Add(diagnose.StepUDP, diagnose.Skip, 0, `"udp.mode" is "off"`)
		return
	case !target.IsValid() || packetenc.Question(target) == nil:
		if kind := k.guard.prober.Kind(); form == packetenc.Unknown && (kind == vmess.KindNative || kind == vmess.KindSingBox) {
			form = packetenc.XUDP
		}
		k.report.Add(diagnose.StepUDP, diagnose.Skip, 0, "not tried (--target HOST:53 or HOST:3478 does); by "+form.String()+": "+form.NATBehavior())
		return
	}
	start := time.Now()
	best, misled := k.guard.packets.Probe(ctx, target)
	took := time.Since(start)
	switch {
	case best != packetenc.Unknown:
		k.report.Add(diagnose.StepUDP, diagnose.Pass, took, target.String()+" answers by "+best.String()+": "+best.NATBehavior())
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
