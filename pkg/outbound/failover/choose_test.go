package failover

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
)

// What is logged about a change of servers is true of both.
func TestChangeOfServersIsTold(t *testing.T) {
	const failed = "tcp.refused"
	for _, c := range []struct {
		name string
		do   func(f *Group, one, two *entry)
		want string
	}{
		{"it fails", func(f *Group, one, _ *entry) { f.MarkDown(one.server, failed) }, `now using server "two" ("one" failed: tcp.refused)`},
		{"the better is back", func(f *Group, one, _ *entry) {
			f.MarkDown(one.server, failed)
			f.back(one, time.Now())
		}, `now using server "one" (it is back, and comes before "two")`},
		{"the other is back while this one is away", func(f *Group, one, two *entry) {
			f.MarkDown(two.server, failed)
			f.MarkDown(one.server, failed)
			f.back(two, time.Now())
		}, `now using server "two" (it is back, and "one" is not)`},
		{"by hand", func(f *Group, _, two *entry) { f.Pin(two.server) }, `now using server "two" ("one" was left by hand)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			f := New(slog.New(logging.New(&log, slog.LevelInfo, false)), []Server{&fake{name: "one"}, &fake{name: "two"}}, 0)
			defer f.Close()
			c.do(f, f.members[0], f.members[1])
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			if got := lines[len(lines)-1]; got != c.want {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}
