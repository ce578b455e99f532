package diagnose_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
)

func localCases() []judged {
	type facts = diagnose.ListenFacts
	var cases []judged
	listen := func(name string, n syscall.Errno, addr string, f facts, c diagnose.Cause, sure diagnose.Confidence) {
		if f.System == "" {
			f.System = "linux"
		}
		err := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", n)}
		cases = append(cases, judged{"listen: " + name, c, sure, diagnose.Listen(err, addr, f)})
	}
	const here, place = "127.0.0.1:1080", "config.json:2:13"
	certain := diagnose.Certain
	listen("taken", syscall.EADDRINUSE, here, facts{}, diagnose.ListenInUse, certain)
	listen("taken by a known one", syscall.EADDRINUSE, here, facts{Place: place, Owner: diagnose.PortOwner{PID: 812, Name: "v2ray"}, Free: "127.0.0.1:1081"}, diagnose.ListenInUse, certain)
	listen("taken by a nameless one", syscall.EADDRINUSE, here, facts{Owner: diagnose.PortOwner{PID: 812}}, diagnose.ListenInUse, certain)
	listen("privileged", syscall.EACCES, "127.0.0.1:80", facts{Place: place}, diagnose.ListenDenied, certain)
	listen("denied", syscall.EACCES, here, facts{Free: "127.0.0.1:1090"}, diagnose.ListenDenied, certain)
	listen("reserved by Windows", syscall.EACCES, here, facts{Place: place, System: "windows", Free: "127.0.0.1:1090"}, diagnose.ListenDenied, certain)
	listen("not our address", syscall.EADDRNOTAVAIL, "192.0.2.1:1080", facts{Place: place}, diagnose.ListenDenied, certain)
	listen("out of files", syscall.EMFILE, here, facts{}, diagnose.LimitConnections, certain)
	listen("something else", syscall.EINVAL, here, facts{}, diagnose.ListenDenied, diagnose.Likely)

	f := diagnose.LocalFacts{Client: "127.0.0.1:50000", Listen: here}
	local := func(name string, fault diagnose.LocalFault, f diagnose.LocalFacts, c diagnose.Cause) {
		cases = append(cases, judged{"local: " + name, c, certain, diagnose.Local(fault, f)})
	}
	local("noise", diagnose.FaultNoise, f, diagnose.LocalBadHandshake)
	local("noise, nothing known", diagnose.FaultNoise, diagnose.LocalFacts{}, diagnose.LocalBadHandshake)
	local("TLS", diagnose.FaultTLS, f, diagnose.LocalBadHandshake)
	local("silence", diagnose.FaultSilence, f, diagnose.LocalBadHandshake)
	local("command", diagnose.FaultCommand, f, diagnose.LocalBadHandshake)
	local("UDP", diagnose.FaultUDP, diagnose.LocalFacts{Client: f.Client, Place: "config.json:4:20"}, diagnose.LocalBadHandshake)
	local("UDP, nothing known", diagnose.FaultUDP, diagnose.LocalFacts{}, diagnose.LocalBadHandshake)
	local("loop", diagnose.FaultLoop, f, diagnose.LocalBadHandshake)
	local("web page", diagnose.FaultWebPage, f, diagnose.LocalBadHandshake)
	local("password", diagnose.FaultAuth, diagnose.LocalFacts{Client: f.Client, Place: "config.json:3:11"}, diagnose.LocalBadAuth)
	local("password where none is set", diagnose.FaultNeedsNoAuth, diagnose.LocalFacts{Client: f.Client, Place: "config.json:3:11"}, diagnose.LocalNeedsNoAuth)
	local("password where none is set, nothing known", diagnose.FaultNeedsNoAuth, diagnose.LocalFacts{}, diagnose.LocalNeedsNoAuth)
	local("port 0", diagnose.FaultRequest, diagnose.LocalFacts{Client: f.Client, Protocol: "SOCKS5", BadDestination: true, Wrong: "the port is 0"}, diagnose.LocalBadRequest)
	local("malformed", diagnose.FaultRequest, diagnose.LocalFacts{Client: f.Client, Protocol: "HTTP", Wrong: "unknown method"}, diagnose.LocalBadRequest)
	local("malformed, nothing known", diagnose.FaultRequest, diagnose.LocalFacts{}, diagnose.LocalBadRequest)
	local("too many", diagnose.FaultTooMany, diagnose.LocalFacts{Limit: 512}, diagnose.LimitConnections)
	local("no more files", diagnose.FaultFiles, diagnose.LocalFacts{Place: "config.json:1:2"}, diagnose.LimitConnections)
	return cases
}

func configCases(t *testing.T) []judged {
	var cases []judged
	with := func(server string) string {
		return `{"server": {"address": "a", "port": 1, "id": "` + secretID + `",` + "\n" + server + `}}`
	}
	add := func(name, text string, causes ...diagnose.Cause) {
		_, err := config.ParseClient("config.json", []byte(text))
		var problems *config.Problems
		if !errors.As(err, &problems) || len(problems.All) != len(causes) {
			t.Fatalf("%s: %v", name, err)
		}
		for i, p := range problems.All {
			cases = append(cases, judged{fmt.Sprintf("config: %s %d", name, i+1), causes[i], diagnose.Certain, diagnose.Config(p)})
		}
	}
	add("comma", "{\n  \"listen\": \":1\"\n  \"auth\": {}}", diagnose.ConfigSyntax)
	add("quotes", `{listen: 1}`, diagnose.ConfigSyntax)
	add("early end", `// x`, diagnose.ConfigSyntax)
	add("misspelt", with(`"ws": {"pth": "/"}`), diagnose.ConfigUnknownKey)
	add("unknown", `{"zzzzzz": 1, `+with(``)[1:], diagnose.ConfigUnknownKey)
	add("type", with(`"alterId": "0"`), diagnose.ConfigValue)
	add("twice", with(`"alterId": 0, "alterId": 1`), diagnose.ConfigValue)
	add("id", `{"server": {"address": "a", "port": 1, "id": "`+secretID[:35]+`"}}`, diagnose.ConfigValue)
	add("missing", `{"server": {}}`, diagnose.ConfigMissing, diagnose.ConfigMissing, diagnose.ConfigMissing)
	add("auth", `{"listen": "0.0.0.0:1080", `+with(``)[1:], diagnose.ListenNeedsAuth)
	for name, err := range map[string]error{"no file": fs.ErrNotExist, "not readable": fs.ErrPermission, "directory": errors.New("it is a directory")} {
		p := config.Problem{Cause: config.CauseUnreadable, File: "config.json", Message: "the file cannot be read: " + err.Error(), Err: err}
		cases = append(cases, judged{"config: " + name, diagnose.ConfigUnreadable, diagnose.Certain, diagnose.Config(p)})
	}
	for name, p := range map[string]config.Problem{
		"no file":     {Cause: config.CauseUnreadable, File: "server.json", Message: "the file cannot be read", Err: fs.ErrNotExist},
		"unknown key": {Cause: config.CauseUnknownKey, File: "server.json", Line: 1, Column: 2, Path: "x", Message: "unknown key"},
		"client's":    {Cause: config.CauseUnknownKey, File: "server.json", Line: 1, Column: 2, Path: "x", Message: "unknown key", Want: "one of listen, users"},
	} {
		cases = append(cases, judged{"config of the server: " + name, diagnose.Cause(p.Cause), diagnose.Certain, diagnose.ConfigOfServer(p)})
	}
	slices.SortFunc(cases, func(a, b judged) int { return strings.Compare(a.name, b.name) })
	return cases
}

// TestHolder finds this very process behind a port it listens on.
func TestHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	h := diagnose.PortOwnerOf(addr)
	if runtime.GOOS == "linux" && (h.PID != os.Getpid() || h.Name == "") {
		t.Errorf("got %+v, want %d", h, os.Getpid())
	}
	_, port, _ := net.SplitHostPort(addr)
	if h := diagnose.PortOwnerOf("127.0.0.2:" + port); h.PID != 0 {
		t.Errorf("127.0.0.2 is held by %+v", h)
	}
	for _, bad := range []string{"", "x", "127.0.0.1:http", "127.0.0.1:70000"} {
		if h := diagnose.PortOwnerOf(bad); h.PID != 0 {
			t.Errorf("%q: %+v", bad, h)
		}
	}
	free := diagnose.FreeAddress(addr)
	ap, err := netip.ParseAddrPort(free)
	if n, _ := strconv.Atoi(port); err != nil || int(ap.Port()) <= n || int(ap.Port()) > n+20 {
		t.Errorf("free address beside %s: %q", addr, free)
	}
	for _, bad := range []string{"", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:65535"} {
		if got := diagnose.FreeAddress(bad); got != "" {
			t.Errorf("%q: %q", bad, got)
		}
	}
	if got := diagnose.FreeAddress("127.0.0.1:80"); !strings.HasPrefix(got, "127.0.0.1:10") {
		t.Errorf("beside port 80: %q", got)
	}
}
