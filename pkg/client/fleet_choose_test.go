package client

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/logline"
)

// What is said of a change of servers is true of both.
func TestChangeOfServersIsTold(t *testing.T) {
	failed := diagnose.Verdict{Cause: diagnose.TCPRefused}
	for _, c := range []struct {
		name string
		do   func(f *fleet, one, two *member)
		want string
	}{
		{"it fails", func(f *fleet, one, _ *member) { f.failure(one, failed) }, `now using server "two" ("one" failed: tcp.refused)`},
		{"the better is back", func(f *fleet, one, _ *member) {
			f.failure(one, failed)
			f.back(one, time.Now())
		}, `now using server "one" (it is back, and comes before "two")`},
		{"the other is back while this one is away", func(f *fleet, one, two *member) {
			f.failure(two, failed)
			f.failure(one, failed)
			f.back(two, time.Now())
		}, `now using server "two" (it is back, and "one" is not)`},
		{"by hand", func(f *fleet, _, _ *member) { f.prefer("two") }, `now using server "two" ("one" was left by hand)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			f := &fleet{log: slog.New(logline.New(&log, slog.LevelInfo, false))}
			for _, name := range []string{"one", "two"} {
				f.members = append(f.members, &member{guard: &guard{voice: &voice{server: name}}})
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
