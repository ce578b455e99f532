package e2e

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
)

// A soakFate is what a destination does with its answer.
type soakFate uint8

const (
	noFate soakFate = iota
	late            // it answers when it has got all, and has thought about that
	stalls          // it is silent in the middle
	resets          // it breaks off in the middle
	soakFates
)

// someFate returns what befalls a stream of a way.
func (w *soakWay) someFate() soakFate {
	if !w.fates {
		return noFate
	}
	return soakFate(rand.IntN(int(soakFates)))
}

// answer writes what goes down. taken tells whether all that goes up has come.
func (o soakOrder) answer(c *net.TCPConn, taken <-chan bool) error {
	data, part := pattern(o.Seed, o.Down), int64(0)
	silence := time.Second + rand.N(soakPatience/2)
	switch o.Fate {
	case late:
		if !<-taken {
			return net.ErrClosed
		}
		time.Sleep(silence)
		return sendPattern(c, data)
	case stalls, resets:
		part = o.Down / 2
	case noFate, soakFates:
		return sendPattern(c, data)
	}
	// The pattern is a stream: its second half begins where the first ends.
	first := make([]byte, part)
	if _, err := io.ReadFull(data, first); err != nil {
		return err
	}
	if err := sendPattern(c, bytes.NewReader(first)); err != nil {
		return err
	}
	if o.Fate == resets {
		time.Sleep(rand.N(2 * time.Second))
		tear(c)
		return net.ErrClosed
	}
	time.Sleep(silence)
	return sendPattern(c, data)
}

// A blameLog keeps the failures that a client logs and that are not the
// destination's.
type blameLog struct {
	mu    sync.Mutex
	lines []string
}

// Write implements io.Writer: each call is one record.
func (l *blameLog) Write(p []byte) (int, error) {
	if i := bytes.Index(p, []byte("error: ")); i >= 0 && !bytes.HasPrefix(p[i:], []byte("error: destination.")) {
		l.mu.Lock()
		l.lines = append(l.lines, strings.TrimSpace(string(p)))
		l.mu.Unlock()
	}
	return len(p), nil
}

// addFates adds ways on which destinations make trouble, and nobody else does.
func (s *soak) addFates(t *testing.T) {
	for _, c := range []struct {
		name   string
		addr   string
		change func(*config.Client)
		mux    bool
		ours   bool
	}{
		{"our client, our server, destinations that reset, stall and are late", startSoakServer(t).addr, noChange, false, true},
		{"our client with Mux, our server, such destinations", startSoakServer(t).addr, withMux, true, true},
		{"our client, V2Ray's server, such destinations", startV2rayServer(t, v2rayServer{}).addr, noChange, false, false},
	} {
		log := new(blameLog)
		near := startLoggedSoakClient(t, remoteAt(t, c.addr), c.change, slog.New(logging.New(log, slog.LevelInfo, false)))
		s.add(t, &soakWay{
			name: c.name, near: near.addr, halves: c.ours && !c.mux,
			tellsUp: c.ours, tellsDown: c.ours, mux: c.mux, fates: true, log: log,
		})
	}
}

// unfairLines are what was logged of failures where only destinations made
// trouble.
func (s *soak) unfairLines() (lines []string) {
	for _, w := range s.ways {
		if w.log != nil {
			w.log.mu.Lock()
			lines = append(lines, w.log.lines...)
			w.log.mu.Unlock()
		}
	}
	return lines
}

// addUnsteady adds a server that freezes and drains, where the system can make
// it do so.
func (s *soak) addUnsteady(t *testing.T) {
	if runtime.GOOS == "windows" {
		return
	}
	cfg := serverConfig()
	cfg.Listen, cfg.Limits.Drain = freePort(t), config.Duration(2*time.Second)
	far := ourServer(t, cfg)
	for _, mux := range []bool{false, true} {
		near := startSoakClient(t, far.addr, func(c *config.Client) { c.Mux.Enabled = mux })
		w := &soakWay{
			name: "our client, our server that freezes and drains, " + muxName(mux), near: near.addr,
			halves: !mux, tellsUp: true, tellsDown: true, mux: mux, fates: true,
		}
		if !mux { // one is enough
			w.trouble = func(ctx context.Context) { unsteady(ctx, t, far) }
		}
		s.add(t, w)
	}
}

// unsteady freezes a server and drains it, in turn.
func unsteady(ctx context.Context, t *testing.T, far *end) {
	every := min(10*time.Second, *soakFor/8)
	froze, drained := 0, 0
	for pause(ctx, every/2+rand.N(every)) {
		if froze < drained {
			froze++
			stopProcess(far.proc.cmd.Process)
			_ = pause(ctx, rand.N(2*every))
			continueProcess(far.proc.cmd.Process)
			continue
		}
		drained++
		if err := far.proc.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-far.proc.done
		far.restart(t)
	}
	t.Logf("a server froze %d times and drained %d times", froze, drained)
	if froze == 0 || drained == 0 {
		t.Error("a server was steady")
	}
}
