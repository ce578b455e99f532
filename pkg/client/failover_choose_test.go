package client

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
)

// What is said of a change of servers is true of both.
func TestChangeOfServersIsTold(t *testing.T) {
	failed := diagnose.Verdict{Cause: diagnose.TCPRefused}
	for _, c := range []struct {
		name string
		do   func(f *failoverGroup, one, two *entry)
		want string
	}{
		{"it fails", func(f *failoverGroup, one, _ *entry) { f.failure(one, failed) }, `now using server "two" ("one" failed: tcp.refused)`},
		{"the better is back", func(f *failoverGroup, one, _ *entry) {
			f.failure(one, failed)
			f.back(one, time.Now())
		}, `now using server "one" (it is back, and comes before "two")`},
		{"the other is back while this one is away", func(f *failoverGroup, one, two *entry) {
			f.failure(two, failed)
			f.failure(one, failed)
			f.back(two, time.Now())
		}, `now using server "two" (it is back, and "one" is not)`},
		{"by hand", func(f *failoverGroup, _, _ *entry) { f.pin("two") }, `now using server "two" ("one" was left by hand)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			f := &failoverGroup{log: slog.New(logging.New(&log, slog.LevelInfo, false))}
			for _, name := range []string{"one", "two"} {
				f.members = append(f.members, &entry{guard: &guard{remote: &config.Remote{Name: name}}})
			}
			f.using = f.members[0]
			c.do(f, f.members[0], f.members[1])
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			if got := lines[len(lines)-1]; got != c.want {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}
