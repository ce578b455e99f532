package failurelog

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/status/stats"
)

// capture is what a Log wrote since it was last asked.
type capture struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *capture) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.buf.Reset()
	return c.buf.String()
}

// newCaptured returns a Log and what people read of it.
func newCaptured(opt Options) (*Log, *capture) {
	text := new(capture)
	opt.Log, opt.Server = slog.New(logging.New(text, slog.LevelInfo, false)), "home"
	return New(opt), text
}

func verdict(c diagnose.Cause) diagnose.Verdict {
	return diagnose.Verdict{Cause: c, Confidence: diagnose.Certain, Sentence: "it broke", Fix: "mend it"}
}

func TestRepeatsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, text := newCaptured(Options{})
		read := text.take
		say := func(c diagnose.Cause, n int) {
			for range n {
				l.Report(verdict(c))
			}
		}
		say(diagnose.TCPRefused, 38)
		say(diagnose.DNSFailed, 1)
		const once = "error: tcp.refused: it broke [certain]\nfix: mend it\nerror: dns.failed: it broke [certain]\nfix: mend it\n"
		if got := read(); got != once {
			t.Errorf("at once: %q", got)
		}
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		pass(repeatWindow)
		if got := read(); got != "error: tcp.refused: again 37 times in 60 s\n" {
			t.Errorf("after a minute: %q", got)
		}
		say(diagnose.TCPRefused, 1)
		pass(repeatWindow)
		if got := read(); got != "error: tcp.refused: again 1 time in 60 s\n" {
			t.Errorf("after two minutes: %q", got)
		}
		pass(repeatWindow)
		if got := read(); got != "" {
			t.Errorf("after a minute of peace: %q", got)
		}
		say(diagnose.TCPRefused, 3)
		if got := read(); got != "error: tcp.refused: it broke [certain]\nfix: mend it\n" {
			t.Errorf("when it comes back: %q", got)
		}
		pass(10 * time.Second)
		l.Close()
		if got := read(); got != "error: tcp.refused: again 2 times in 10 s\n" {
			t.Errorf("at the end: %q", got)
		}
		say(diagnose.TCPRefused, 1)
		l.Close()
		pass(2 * repeatWindow)
		if got := read(); got != "" {
			t.Errorf("after the end: %q", got)
		}
	})
}

// TestMoreConfidentVerdictIsLogged: a verdict that has become surer is no repeat, once.
func TestMoreConfidentVerdictIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, text := newCaptured(Options{})
		defer l.Close()
		sure := verdict(diagnose.TunnelIdleCut)
		unsure := sure
		unsure.Confidence = diagnose.Likely
		for _, v := range []diagnose.Verdict{unsure, sure, unsure, sure} {
			l.Report(v)
		}
		const want = "error: tunnel.idle-cut: it broke [likely]\nfix: mend it\nerror: tunnel.idle-cut: it broke [certain]\nfix: mend it\n"
		if got := text.take(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestRecurrenceAfterRecoveryIsLogged: a failure of the path that comes back after
// the server was reachable is news, and a repeat that is logged later keeps its own
// time.
func TestRecurrenceAfterRecoveryIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answered time.Time
		registry := stats.NewRegistry()
		l, text := newCaptured(Options{Registry: registry, LastAnswer: func() time.Time { return answered }})
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		const first, again = "error: tcp.refused: it broke [certain]\nfix: mend it\n", "error: tcp.refused: again 1 time in "
		expect := func(when, want string) {
			t.Helper()
			if got := text.take(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		l.Report(verdict(diagnose.TCPRefused))
		pass(time.Second)
		l.Report(verdict(diagnose.TCPRefused))
		expect("at once", first)
		pass(2 * quietPeriod)
		l.Report(verdict(diagnose.TCPRefused))
		expect("the server was not there meanwhile", "")
		answered = time.Now().Add(1)
		pass(quietPeriod - 1)
		l.Report(verdict(diagnose.TCPRefused))
		expect("too soon", "")
		answered = time.Now().Add(1)
		pass(quietPeriod)
		l.Report(verdict(diagnose.TCPRefused))
		expect("it was there meanwhile", "error: tcp.refused: again 3 times in 21 s\n"+first)
		l.Report(verdict(diagnose.TCPRefused))
		last := time.Now()
		pass(repeatWindow)
		expect("after a minute", again+"60 s\n")
		if f := registry.Failures(); !f[0].Time.Equal(last) {
			t.Errorf("it happened at %v, and stands there with %v", last, f[0].Time)
		}
		l.Report(verdict(diagnose.LimitConnections))
		_ = text.take()
		answered = time.Now().Add(1)
		pass(2 * quietPeriod)
		l.Report(verdict(diagnose.LimitConnections))
		expect("what does not lie on the way", "")
		l.Close()
	})
}

func TestFailureLogIgnoresZero(t *testing.T) {
	l, text := newCaptured(Options{})
	defer l.Close()
	l.Report(diagnose.Verdict{})
	if got := text.take(); got != "" {
		t.Errorf("said %q", got)
	}
	l.Healed(diagnose.VMessClockSkew, diagnose.HealedClock(time.Hour))
	if got := text.take(); !strings.HasPrefix(got, "healed: vmess.clock-skew: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("healing: %q", got)
	}
}
