package archtest

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "vmess-local"

// A rule says what a package must not depend on, directly or by others.
type rule struct {
	not     []string // of this module's packages
	only    []string // when set: all of this module's packages that it may depend on
	imports []string // when set: all of this module's packages that it may import itself
}

var (
	protocols = []string{"protocol/vmess", "carrier/wsconn", "inbound/socks", "carrier/netdial", "transport", "transport/relay", "transport/tcpconn", "outbound/direct", "dispatch"}
	runtime   = append([]string{"client", "server", "demo", "servercheck"}, protocols...)
	nothing   = []string{}
)

// rules has every package; one that is not here fails the test.
var rules = map[string]rule{
	"transport/netaddr":       {only: nothing},
	"cli/logging":             {only: nothing},
	"host/gcpacer":            {only: nothing},
	"host/fdlimit":            {only: nothing},
	"cli/control":             {only: nothing},
	"host/netmon":             {only: nothing},
	"outbound/failover":       {imports: []string{"transport", "transport/netaddr", "outbound/reconnect", "cli/logging"}},
	"outbound/reconnect":      {only: nothing},
	"transport/rawsock":       {only: nothing},
	"host/errno":              {only: nothing},
	"host/listen":             {only: nothing},
	"host/atomicfile":         {only: nothing},
	"internal/archtest":       {only: nothing},
	"internal/e2e":            {},
	"internal/bench":          {not: []string{"server", "demo", "cli"}},
	"transport":               {only: []string{"host/errno", "transport/netaddr"}},
	"transport/tcpconn":       {only: []string{"host/errno", "transport/netaddr", "transport/rawsock", "transport"}},
	"transport/relay":         {only: []string{"host/errno", "transport/netaddr", "transport"}},
	"carrier/tlsconn":         {only: []string{"host/errno", "transport/netaddr", "transport/rawsock", "transport", "transport/tcpconn"}},
	"transport/transporttest": {only: []string{"host/errno", "transport/netaddr", "transport"}},
	"status/stats":            {only: []string{"host/errno", "transport/netaddr", "transport"}},
	"status":                  {only: []string{"host/errno"}},
	"inbound/socks":           {not: []string{"protocol/vmess", "carrier/wsconn", "config"}},
	"inbound/udp":             {only: []string{"host/errno", "transport/netaddr", "transport/rawsock", "transport", "transport/tcpconn"}},
	"dispatch":                {not: []string{"inbound/socks", "protocol/vmess", "carrier/wsconn", "config"}},
	"protocol/vmess":          {not: []string{"carrier/netdial", "outbound/direct", "carrier/wsconn", "dispatch", "config"}},
	"carrier/wsconn":          {not: []string{"protocol/vmess", "dispatch", "config", "carrier/netdial"}},
	"carrier/netdial":         {not: []string{"carrier/wsconn", "protocol/vmess", "config"}},
	"protocol/mux":            {not: []string{"protocol/vmess", "carrier/wsconn", "dispatch"}},
	"carrier/connpool":        {not: []string{"protocol/vmess", "config"}},
	"outbound/packetenc":      {only: []string{"host/errno", "inbound/udp", "protocol/mux", "protocol/vmess", "transport", "transport/netaddr", "transport/rawsock", "transport/tcpconn"}},
	"outbound/direct":         {not: []string{"protocol/vmess", "carrier/wsconn"}},
	"config":                  {only: []string{"transport/netaddr"}},
	"config/sharelink":        {only: []string{"config", "transport/netaddr"}},
	"serverinit":              {not: []string{"client", "server"}},
	"diagnose":                {not: []string{"inbound/socks", "dispatch", "client", "server"}},
	"diagnose/failurelog":     {imports: []string{"diagnose", "status/stats", "cli/logging"}},
	"client":                  {not: []string{"server", "demo", "servercheck", "cli"}},
	"server":                  {not: []string{"client", "demo", "servercheck", "cli"}},
	"demo":                    {not: []string{"cli"}},
	"servercheck":             {not: []string{"demo", "cli"}},
	"cli":                     {not: runtime},
	"internal/release":        {only: nothing},
	"cli/clitest":             {not: runtime},
}

// errorNumber matches comparisons of an error with a system's number.
var errorNumber = regexp.MustCompile(`errors\.Is\([^()]*, (syscall|unix|windows)\.[EW]|syscall\.WSAE|windows\.WSAE|syscall\.Errno\(\d`)

var ownCalls = regexp.MustCompile(`_(test|linux|unix)\.go$`)

// TestErrorNumbers holds that only the package errno classifies the system's
// error numbers, apart from code for Linux and Unix that makes system calls
// itself.
func TestErrorNumbers(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(filepath.Join("..", "..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || ownCalls.MatchString(path) || filepath.Base(filepath.Dir(path)) == "host/errno" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		checked++
		if found := errorNumber.Find(data); found != nil {
			t.Errorf("%s compares with an error number: %s: use the package errno", path, found)
		}
		return nil
	})
	if err != nil || checked < 100 {
		t.Errorf("checked %d files, %v", checked, err)
	}
}

// owners are the only packages that may import a library.
var owners = map[string]string{
	"github.com/gorilla/websocket":      "carrier/wsconn",
	"github.com/txthinking/socks5":      "inbound/socks",
	"github.com/google/uuid":            "protocol/vmess config",
	"github.com/tailscale/hujson":       "config",
	"github.com/go-json-experiment/":    "config",
	"github.com/spf13/cobra":            "cli",
	"golang.org/x/term":                 "cli",
	"github.com/refraction-networking/": "carrier/netdial",
	"golang.org/x/crypto":               "protocol/vmess",
	"rsc.io/qr":                         "config/sharelink",
	"go.yaml.in/yaml/v3":                "config/sharelink",
}

type goPackage struct {
	ImportPath, Doc string
	Imports, Deps   []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Deps", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(rules) {
		t.Fatalf("go list knows %d packages, there are rules for %d", len(all), len(rules))
	}
	return all
}

// local strips the module's prefix, and returns "" for other packages.
func local(path string) string {
	p, _ := strings.CutPrefix(path, module+"/pkg/")
	if p == path {
		return ""
	}
	return p
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, module+"/cmd/") {
			for _, i := range p.Imports {
				if slices.Contains(protocols, local(i)) {
					t.Errorf("%s imports %s: commands hold no protocol", p.ImportPath, i)
				}
			}
			continue
		}
		name := local(p.ImportPath)
		r, known := rules[name]
		if !known {
			t.Errorf("there is no rule for %s", p.ImportPath)
		}
		for _, d := range p.Deps {
			dep := local(d)
			if dep == "" {
				continue
			}
			if slices.Contains(r.not, dep) || r.only != nil && !slices.Contains(r.only, dep) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
		for _, i := range p.Imports {
			if dep := local(i); dep != "" && r.imports != nil && !slices.Contains(r.imports, dep) {
				t.Errorf("%s imports %s", name, dep)
			}
			for library, owner := range owners {
				if strings.HasPrefix(i, library) && !slices.Contains(strings.Fields(owner), name) {
					t.Errorf("%s imports %s, which belongs to %s", name, i, owner)
				}
			}
		}
		if slices.Contains([]string{"transport/netaddr", "transport", "host/fdlimit", "cli/logging"}, name) {
			for _, i := range p.Imports {
				if strings.Contains(strings.Split(i, "/")[0], ".") {
					t.Errorf("%s imports %s: it needs the standard library only", name, i)
				}
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.Doc) < 40 {
			t.Errorf("%s has no package comment worth the name: %q", p.ImportPath, p.Doc)
		}
	}
}
