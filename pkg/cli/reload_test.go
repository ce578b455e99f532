package cli

import (
	"strings"
	"testing"

	"vmess-local/pkg/cli/control"
)

// What runs elsewhere is named with the command that reaches it.
func TestReloadOfAnotherDirectory(t *testing.T) {
	r := &reloading{program: "prog", dir: "/run/user/1000/prog"}
	here := func(string) (string, bool) { return "/run/user/1000", true }
	for _, c := range []struct {
		elsewhere []control.Process
		want      string
	}{
		{nil, "no running prog found for this user\nfix: start it with prog run -c FILE"},
		{[]control.Process{{PID: 7, Own: true, Known: true, RuntimeDir: "/tmp/a b"}}, "; process 7 is out of reach from here\nfix: XDG_RUNTIME_DIR='/tmp/a b' prog reload, or kill -HUP 7"},
		{[]control.Process{{PID: 7, Own: true, Known: true}}, "\nfix: env -u XDG_RUNTIME_DIR prog reload, or kill -HUP 7"},
		{[]control.Process{{PID: 7, Own: true, Known: true, RuntimeDir: "/run/user/1000"}}, "\nfix: kill -HUP 7"},
		{[]control.Process{{PID: 7, Own: true, Unit: "prog", UserUnit: true}}, "\nfix: systemctl --user reload prog"},
		{[]control.Process{{PID: 7, Unit: "prog"}}, "; process 7 is another user's\nfix: sudo systemctl reload prog"},
		{[]control.Process{{PID: 7}, {PID: 8, Unit: "prog", UserUnit: true}}, "; 2 processes are other users'\nfix: sudo kill -HUP 7 8"},
		{[]control.Process{{PID: 7, Own: true, Known: true, RuntimeDir: "/tmp/a"}, {PID: 8, Own: true}, {PID: 9, Own: true, Known: true, RuntimeDir: "/tmp/a"}}, "\nfix: XDG_RUNTIME_DIR=/tmp/a prog reload, or kill -HUP 7 9; or kill -HUP 8"},
		{[]control.Process{{PID: 7, Own: true, Unit: "prog", UserUnit: true}, {PID: 8, Own: true, Unit: "prog", UserUnit: true}}, "\nfix: systemctl --user reload prog"},
	} {
		if got := r.notFound(c.elsewhere, here); !strings.HasSuffix(got, c.want) || !strings.HasPrefix(got, "no running prog found for this user") {
			t.Errorf("%+v:\n%s\nwant %s", c.elsewhere, got, c.want)
		}
	}
}

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		meant, listens string
		want           bool
	}{
		{"127.0.0.1:1080", "127.0.0.1:1080", true},
		{"localhost:1080", "127.0.0.1:1080", true},
		{":1080", "127.0.0.1:1080", true},
		{"127.0.0.1:1080", "0.0.0.0:1080", true},
		{"192.168.1.5:1080", "[::]:1080", true},
		{"127.0.0.1:1081", "127.0.0.1:1080", false},
		{"127.0.0.2:1080", "127.0.0.1:1080", false},
		{"127.0.0.1:1080", "", false},
	} {
		if got := sameAddress(c.meant, c.listens); got != c.want {
			t.Errorf("sameAddress(%q, %q) = %v", c.meant, c.listens, got)
		}
	}
}
