package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/outbound/packetenc"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const (
	// checkAnswer is how long a destination may take to answer in a check.
	checkAnswer = 5 * time.Second
	// streamDelay is how much longer than an answer to a datagram one in a stream
	// may take.
	streamDelay = time.Second
)

// Check is [CheckServer] of the first server.
func Check(ctx context.Context, cfg *config.Client, opt Options, target netaddr.Addr) (*diagnose.Report, error) {
	return CheckServer(ctx, cfg, 0, opt, target)
}

// CheckServer walks the way to a server of a configuration, the i-th of
// [ServerNames], step by step and says what came of each, and of the first that
// failed cause and fix. It needs no running client and does not disturb one.
// target, unless it is the zero value, is a destination to reach through the
// server; nothing else beyond it is touched.
func CheckServer(ctx context.Context, cfg *config.Client, i int, opt Options, target netaddr.Addr) (*diagnose.Report, error) {
	return checkServer(ctx, cfg, remotes(cfg)[i], opt, target)
}

func checkServer(ctx context.Context, cfg *config.Client, at remote, opt Options, target netaddr.Addr) (*diagnose.Report, error) {
	opt.Log, opt.board = slog.New(slog.DiscardHandler), nil // the report says it all
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	account, _, err := newAccount(cfg, at.section, at.Remote, opt)
	if err != nil {
		return nil, err
	}
	g, err := newGuard(cfg, at.section, at.Remote, opt, account)
	if err != nil {
		return nil, err
	}
	defer g.close()
	g.dialer.Endpoint = g.path // nothing is made ahead
	k := &checker{guard: g, report: &diagnose.Report{Server: g.Name(), Each: opt.OnStep}}
	k.configuration(cfg, opt)
	switch {
	case !k.way(ctx) || !k.account(ctx):
	case target.IsValid() && packetenc.Question(target) != nil && cfg.UDP.Mode != "off":
		k.byBoth(ctx, cfg, target)
	default:
		if target.IsValid() {
			k.destination(k.ask(ctx, target), target)
		}
		k.datagrams(ctx, cfg, target)
	}
	k.report.Complete()
	order := diagnose.Steps()
	slices.SortStableFunc(k.report.Steps, func(a, b diagnose.CheckStep) int {
		return slices.Index(order, a.Name) - slices.Index(order, b.Name)
	})
	return k.report, nil
}

// A checker is one check under way.
type checker struct {
	guard  *guard
	report *diagnose.Report
}

// configuration reports what works and is dangerous, as a start does.
func (k *checker) configuration(cfg *config.Client, opt Options) {
	var warnings []string
	if mistake := vmess.AEADDisabledMistake(opt.LookupEnv); mistake != "" {
		warnings = append(warnings, mistake)
	}
	warnings = append(warnings, cautions(k.guard.remote)...)
	if len(warnings) > 0 {
		k.report.Add(diagnose.StepConfiguration, diagnose.Warn, 0, strings.Join(warnings, "; "))
		return
	}
	file, _, _, ok := cfg.Position(k.guard.section)
	if !ok {
		file = "a link"
	}
	k.report.Add(diagnose.StepConfiguration, diagnose.Pass, 0, file)
}

// way connects and upgrades, and reports whether that went well.
func (k *checker) way(ctx context.Context) bool {
	var steps []netdial.Progress
	below := k.guard.path.plain.Endpoint.(*netdial.Dialer)
	below.OnStep = func(p netdial.Progress) {
		if p.Done {
			steps = append(steps, p)
		}
	}
	start := time.Now()
	conn, err := k.guard.path.withDialTimeout(k.guard.path.plain).ConnectStream(ctx, nil)
	took := time.Since(start)
	below.OnStep = nil
	seen := k.steps(steps)
	k.passed(seen)
	if err == nil {
		h := conn.(*wsconn.Conn).Handshake()
		_ = conn.Close()
		detail := "the server upgrades to WebSocket"
		if s := h.Header.Get("Server"); s != "" {
			detail += "; Server: " + s
		}
		k.report.Add(diagnose.StepUpgrade, diagnose.Pass, h.Received.Sub(h.Sent), detail)
		return true
	}
	var step *netdial.Error
	if !errors.As(err, &step) {
		k.report.Add(diagnose.StepUpgrade, diagnose.Fail, took, "")
	}
	k.report.Verdict, _ = diagnose.Connect(err, k.guard.setting, k.guard.prober.Look(ctx, err))
	return false
}

// steps adds what the dialling told, and returns which steps there were.
func (k *checker) steps(steps []netdial.Progress) map[string]bool {
	seen := map[string]bool{}
	for _, p := range steps {
		name := map[netdial.Step]string{
			netdial.StepDNS: diagnose.StepDNS, netdial.StepTCP: diagnose.StepTCP,
			netdial.StepUpstream: diagnose.StepTCP, netdial.StepTLS: diagnose.StepTLS,
		}[p.Step]
		seen[name] = true
		status, detail := diagnose.Pass, stepDetail(p)
		if p.Err != nil && !p.Remembered {
			status, detail = diagnose.Fail, ""
		}
		k.report.Add(name, status, p.Took, detail)
	}
	return seen
}

func stepDetail(p netdial.Progress) string {
	switch {
	case p.Step == netdial.StepDNS:
		return p.Addr + " is " + addresses(p.Addrs)
	case p.Step == netdial.StepUpstream:
		return "the upstream proxy leads to " + p.Addr
	case p.TLS != nil && len(p.TLS.PeerCertificates) > 0:
		leaf := p.TLS.PeerCertificates[0]
		return fmt.Sprintf("certificate good until %s", leaf.NotAfter.Format(time.DateOnly))
	case p.Remote.IsValid():
		return p.Remote.String()
	}
	return p.Addr
}

func addresses(list []netip.Addr) string {
	texts := make([]string, 0, len(list))
	for _, a := range list {
		texts = append(texts, a.Unmap().String())
	}
	return strings.Join(texts, ", ")
}

// passed says why steps were not taken that did not have to be.
func (k *checker) passed(seen map[string]bool) {
	if _, err := netip.ParseAddr(k.guard.remote.Address); err == nil && !seen[diagnose.StepDNS] {
		k.report.Add(diagnose.StepDNS, diagnose.Skip, 0, "the address is an IP address")
	}
	if !k.guard.remote.TLS.Enabled {
		k.report.Add(diagnose.StepTLS, diagnose.Skip, 0, `"tls.enabled" is false`)
	}
}

// account asks whether the server accepts us, and for its clock.
func (k *checker) account(ctx context.Context) bool {
	g := k.guard
	start := time.Now()
	result := g.prober.Ask(ctx, g.account.Mode(), 0)
	if result == diagnose.ProbeAccepted && g.path.early.Load() && !accepts(g.prober.AskEarly(ctx, g.account.Mode(), 0)) {
		result = diagnose.ProbeNotTried
	}
	ok := accepts(result)
	if ok {
		k.report.Add(diagnose.StepAccount, diagnose.Pass, time.Since(start), "the server accepts the id by "+k.mode())
	} else {
		ok = k.refused(ctx, start, result == diagnose.ProbeBadAnswer)
	}
	k.clock(ctx)
	return ok
}

// mode names how requests are authenticated.
func (k *checker) mode() string {
	if k.guard.account.Legacy() {
		return "legacy MD5"
	}
	return "VMessAEAD"
}

// refused finds out why the server does not accept us, and reports whether a
// running client would be accepted all the same. The rest of the check goes on
// as that does.
func (k *checker) refused(ctx context.Context, start time.Time, badAnswer bool) bool {
	g := k.guard
	sig := g.ask(ctx, badAnswer)
	legacy, early := g.account.Legacy(), g.path.early.Load()
	g.round.Lock()
	o := g.act(sig)
	g.round.Unlock()
	if o.fine && !o.healed && o.verdict.IsZero() {
		k.report.Add(diagnose.StepAccount, diagnose.Pass, time.Since(start), "the server accepts the id by "+k.mode()+", at the second try")
		return true
	}
	k.report.Verdict = diagnose.Account(sig.AccountSignals, g.setting)
	if !o.healed {
		k.report.Add(diagnose.StepAccount, diagnose.Fail, time.Since(start), "")
		return false
	}
	k.report.Healing = diagnose.Healing{
		Clock:     g.account.Offset() != 0,
		AEAD:      legacy && !g.account.Legacy(),
		EarlyData: early && !g.path.early.Load(),
	}
	k.report.Add(diagnose.StepAccount, diagnose.Heal, time.Since(start), "refused as configured, accepted once the client "+k.report.Healing.String())
	return true
}

// clock compares this computer's clock with the server's. A difference that the
// server accepts is none of the account's.
func (k *checker) clock(ctx context.Context) {
	start := time.Now()
	skew, err := k.guard.prober.Skew(ctx)
	if err != nil {
		k.report.Add(diagnose.StepClock, diagnose.Skip, time.Since(start), "the server sends no Date header")
		return
	}
	status, detail := diagnose.Pass, diagnose.ClockDetail(skew)
	switch {
	case skew.Abs() <= skewLimit:
	case k.report.Healing.Clock:
		status = diagnose.Heal
	case k.report.Verdict.IsZero(), k.report.Healing != diagnose.Healing{}:
		detail += ", which accepts that"
	default:
		status = diagnose.Fail
	}
	k.report.Add(diagnose.StepClock, status, time.Since(start), detail)
}

// An asked is how a destination answered in a stream.
type asked struct {
	answered bool
	took     time.Duration
	err      error
}

// ask asks the target anything at all in a stream: its first byte proves the
// whole path.
func (k *checker) ask(ctx context.Context, target netaddr.Addr) asked {
	ctx, cancel := context.WithTimeout(ctx, k.guard.dialTime+checkAnswer)
	defer cancel()
	start := time.Now()
	conn, err := k.guard.dialer.DialStream(ctx, target, streamQuestion(target))
	n := 0
	if err == nil {
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		_ = conn.SetReadDeadline(time.Now().Add(checkAnswer))
		n, err = conn.Read(make([]byte, 512))
	}
	return asked{n > 0, time.Since(start), err}
}

func (k *checker) destination(a asked, target netaddr.Addr) {
	if a.answered {
		k.report.Add(diagnose.StepDestination, diagnose.Pass, a.took, target.String()+" answers")
		return
	}
	k.report.Add(diagnose.StepDestination, diagnose.Fail, a.took, "")
	end := diagnose.StillSilent
	switch {
	case a.err == io.EOF:
		end = diagnose.NoData
	case errors.Is(a.err, vmess.ErrNoAnswer):
		end = diagnose.NoWord
	}
	k.report.Verdict = diagnose.Destination(diagnose.DestinationFacts{
		End: end, After: a.took, Account: diagnose.ProbeAccepted, To: target, Show: true,
	}, k.guard.setting)
}

// byBoth asks a target whose service is UDP's, where TCP is often not served:
// that it does not answer is no failure.
func (k *checker) byBoth(ctx context.Context, cfg *config.Client, target netaddr.Addr) {
	streams, give := context.WithCancel(ctx)
	defer give()
	inStream := make(chan asked, 1)
	go func() { inStream <- k.ask(streams, target) }()
	k.datagrams(ctx, cfg, target)
	late := time.AfterFunc(streamDelay, give)
	defer late.Stop()
	if a := <-inStream; a.answered {
		k.destination(a, target)
	} else {
		k.report.Add(diagnose.StepDestination, diagnose.Skip, a.took, target.String()+" does not answer by TCP, which a service of UDP need not")
	}
}

var _ transport.StreamEndpoint = (*path)(nil)
