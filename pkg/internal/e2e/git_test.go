package e2e

import (
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGit clones a repository over http through the client, by each kind of
// proxy, with a password and without, and pushes to it.
func TestGit(t *testing.T) {
	t.Parallel()
	g := newGit(t)
	site, content := g.serve(t)
	far := inProcessServer(t, serverConfig(), inProcess{}).addr
	open := inProcessClient(t, clientConfig(remoteAt(t, far)))
	closed := inProcessClient(t, withAuth(clientConfig(remoteAt(t, far))))
	for _, tt := range []struct {
		name, proxy string
		near        *end
	}{
		{"http", proxyURL("http", open.addr, false), open},
		{"http-password", proxyURL("http", closed.addr, true), closed},
		{"socks5h", proxyURL("socks5h", open.addr, false), open},
		{"socks5h-password", proxyURL("socks5h", closed.addr, true), closed},
		{"socks4a", proxyURL("socks4a", open.addr, false), open}, // has no password
	} {
		setting := "http.proxy=" + tt.proxy
		before := strings.Count(tt.near.log.String(), "to="+site)
		work := filepath.Join(t.TempDir(), "work")
		g.run(t, "", "-c", setting, "clone", "--quiet", "http://"+site+"/repository.git", work)
		tt.near.log.waitCount(t, "to="+site, before+1)
		if got, err := os.ReadFile(filepath.Join(work, "file")); err != nil || string(got) != content {
			t.Errorf("through %s came %d bytes, want %d: %v", tt.name, len(got), len(content), err)
		}
		g.run(t, work, "-c", setting, "push", "--quiet", "origin", "HEAD:refs/heads/"+tt.name)
		if got := g.run(t, filepath.Join(g.root, "repository.git"), "branch", "--list", tt.name); strings.TrimSpace(got) != tt.name {
			t.Errorf("through %s was pushed %q", tt.name, got)
		}
	}
}

// A gitTool is Git without anybody's settings.
type gitTool struct {
	path, root string // root holds what is served
}

func newGit(t testing.TB) *gitTool {
	t.Helper()
	return &gitTool{path: need(t, "git"), root: t.TempDir()}
}

// run runs Git in dir and returns what it says.
func (g *gitTool) run(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), g.path, args...)
	cmd.Dir = dir
	cmd.Env = append(cleanEnv(), "HOME="+g.root, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=tester", "GIT_AUTHOR_EMAIL=tester@example", "GIT_COMMITTER_NAME=tester", "GIT_COMMITTER_EMAIL=tester@example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// serve serves a repository over http at site, /repository.git, which has one
// file of some size.
func (g *gitTool) serve(t testing.TB) (site, content string) {
	t.Helper()
	bare, work := filepath.Join(g.root, "repository.git"), filepath.Join(t.TempDir(), "first")
	content = strings.Repeat("a line of the file\n", 20_000)
	g.run(t, "", "init", "--quiet", "--bare", bare)
	g.run(t, bare, "config", "http.receivepack", "true")
	g.run(t, "", "init", "--quiet", work)
	writeFile(t, filepath.Join(work, "file"), []byte(content))
	g.run(t, work, "add", "file")
	g.run(t, work, "commit", "--quiet", "-m", "a file")
	g.run(t, work, "push", "--quiet", bare, "HEAD:refs/heads/main")
	g.run(t, bare, "symbolic-ref", "HEAD", "refs/heads/main")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: ioPatience, Handler: &cgi.Handler{
		Path: g.path, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + g.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + g.root},
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return byName(ln.Addr().String()), content
}
