package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/cli/logging"
)

// TestFloodOfRefusals: whoever can reach the port cannot fill the log, neither
// by one reason nor by ever new ones, and cannot hide another reason.
func TestFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logged)
		r := newRefusals(slog.New(logging.New(log, slog.LevelInfo, false)))
		from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:5"))
		lines := func() int { return strings.Count(log.String(), "\n") }
		for range 100_000 {
			r.tell(from, errors.New("invalid user: Not Found"))
		}
		r.tell(from, errors.New("replayed request"))
		if lines() != refusalsTold+1 || !strings.Contains(log.String(), "rejected a connection from 192.0.2.1:5: replayed request\n") {
			t.Errorf("100,000 refusals and one of another reason:\n%s", log)
		}
		time.Sleep(refusalFold)
		synctest.Wait()
		if want := "rejected 99990 more requests in the last 60 s (invalid user: Not Found), most recently from 192.0.2.1:5\n"; !strings.HasSuffix(log.String(), want) {
			t.Errorf("the flood's sum is missing:\n%s", log)
		}

		before := lines()
		for i := range 100_000 {
			r.tell(from, fmt.Errorf("version %d", i))
		}
		if n := lines() - before; n != refusalReasons+refusalsTold {
			t.Errorf("100,000 different refusals take %d lines", n)
		}
		r.close()
		r.tell(from, errors.New("too late"))
		if want := fmt.Sprintf("rejected %d more requests in the last 0 s (various reasons), most recently from 192.0.2.1:5\n", 100_000-refusalReasons-refusalsTold); !strings.HasSuffix(log.String(), want) {
			t.Errorf("the last sum is missing:\n%s", log)
		}
	})
}
