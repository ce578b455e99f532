package client

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/status/stats"
)

// people returns a voice and what people read of it.
func people() (*failureLog, *lockedBuffer) {
	text := new(lockedBuffer)
	return newFailureLog(slog.New(logging.New(text, slog.LevelInfo, false)), "home"), text
}

func verdict(c diagnose.Cause) diagnose.Verdict {
	return diagnose.Verdict{Cause: c, Confidence: diagnose.Certain, Sentence: "it broke", Fix: "mend it"}
}

func TestVoiceFolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, text := people()
		read := text.take
		say := func(c diagnose.Cause, n int) {
			for range n {
				o.Report(verdict(c))
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
		o.close()
		if got := read(); got != "error: tcp.refused: again 2 times in 10 s\n" {
			t.Errorf("at the end: %q", got)
		}
		say(diagnose.TCPRefused, 1)
		o.close()
		pass(2 * repeatWindow)
		if got := read(); got != "" {
			t.Errorf("after the end: %q", got)
		}
	})
}

// TestVoiceTellsAnew: a failure of the way that comes back after the server was
// there is news, and an old one that is counted up later has its own time.
// TestVoiceTellsWhatIsSurer: a verdict that has become surer is no repeat, once.
func TestVoiceTellsWhatIsSurer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, text := people()
		defer o.close()
		sure := verdict(diagnose.TunnelIdleCut)
		unsure := sure
		unsure.Confidence = diagnose.Likely
		for _, v := range []diagnose.Verdict{unsure, sure, unsure, sure} {
			o.Report(v)
		}
		const want = "error: tunnel.idle-cut: it broke [likely]\nfix: mend it\nerror: tunnel.idle-cut: it broke [certain]\nfix: mend it\n"
		if got := text.take(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestVoiceTellsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, text := people()
		var answered time.Time
		o.well, o.board = func() time.Time { return answered }, stats.NewRegistry()
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		const first, again = "error: tcp.refused: it broke [certain]\nfix: mend it\n", "error: tcp.refused: again 1 time in "
		expect := func(when, want string) {
			t.Helper()
			if got := text.take(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		o.Report(verdict(diagnose.TCPRefused))
		pass(time.Second)
		o.Report(verdict(diagnose.TCPRefused))
		expect("at once", first)
		pass(2 * quietPeriod)
		o.Report(verdict(diagnose.TCPRefused))
		expect("the server was not there meanwhile", "")
		answered = time.Now().Add(1)
		pass(quietPeriod - 1)
		o.Report(verdict(diagnose.TCPRefused))
		expect("too soon", "")
		answered = time.Now().Add(1)
		pass(quietPeriod)
		o.Report(verdict(diagnose.TCPRefused))
		expect("it was there meanwhile", "error: tcp.refused: again 3 times in 21 s\n"+first)
		o.Report(verdict(diagnose.TCPRefused))
		last := time.Now()
		pass(repeatWindow)
		expect("after a minute", again+"60 s\n")
		if f := o.board.Failures(); !f[0].Time.Equal(last) {
			t.Errorf("it happened at %v, and stands there with %v", last, f[0].Time)
		}
		o.Report(verdict(diagnose.LimitConnections))
		_ = text.take()
		answered = time.Now().Add(1)
		pass(2 * quietPeriod)
		o.Report(verdict(diagnose.LimitConnections))
		expect("what does not lie on the way", "")
		o.close()
	})
}

func TestFailureLogIgnoresZero(t *testing.T) {
	o, text := people()
	defer o.close()
	o.Report(diagnose.Verdict{})
	if got := text.take(); got != "" {
		t.Errorf("said %q", got)
	}
	o.healed(diagnose.VMessClockSkew, diagnose.HealedClock(time.Hour))
	if got := text.take(); !strings.HasPrefix(got, "healed: vmess.clock-skew: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("healing: %q", got)
	}
}
