package servercheck

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/server"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

// originName is the destination of the trial. It is of a domain that no
// resolver has (RFC 6761).
const originName = "vmess-server.test"

// liveTest starts the server on a free port of loopback and goes through it.
func (k *checker) liveTest(ctx context.Context) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	srv, origin, err := k.newServer()
	if err != nil {
		cancel()
		k.fail(stepStart, time.Since(start), notStarted("server", err, k.file()))
		k.skip("the server does not start", stepTLS, stepUpgrade, stepAEAD, stepMD5)
		return
	}
	done := make(chan error, 2)
	go func() { done <- srv.Run(ctx) }()
	go func() { done <- origin.serve() }()
	defer func() {
		cancel()
		origin.close()
		<-done
		<-done
	}()
	k.add(stepStart, diagnose.Pass, time.Since(start), "VMess over WebSocket on "+srv.Addr().String()+", for this check only")
	k.through(ctx, srv.Addr().(*net.TCPAddr).Port)
}

func notStarted(what string, err error, file string) diagnose.Verdict {
	return mistake("the "+what+" does not start: "+err.Error(), "correct what it names in "+file)
}

func (k *checker) skip(why string, steps ...string) {
	for _, step := range steps {
		k.add(step, diagnose.Skip, 0, why)
	}
}

// newServer makes the configured server, but for where it listens, what it
// leads to and what it shows. It must be run.
func (k *checker) newServer() (*server.Server, *origin, error) {
	if err := k.readPin(); err != nil {
		return nil, nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	origin, err := newOrigin()
	if err != nil {
		_ = ln.Close()
		return nil, nil, err
	}
	cfg := *k.cfg
	cfg.Status.Enabled = false
	cfg.Limits.Drain = 0
	if k.noFallback {
		cfg.Fallback = "" // has been told
	}
	srv, err := server.New(&cfg, server.Options{Listener: ln, Dialer: origin, LookupEnv: k.opt.LookupEnv})
	if err != nil {
		_ = ln.Close()
		origin.close()
		return nil, nil, err
	}
	return srv, origin, nil
}

// through goes through the server as its clients do.
func (k *checker) through(ctx context.Context, port int) {
	target, _ := netaddr.FromHost(originName, 80) // a good name
	v := visit{host: "127.0.0.1", port: port, target: target}
	report, err := k.walk(ctx, v)
	if err != nil {
		k.fail(stepTLS, 0, notStarted("client", err, k.file()))
		k.skip("the client does not start", stepUpgrade, stepAEAD, stepMD5)
		return
	}
	if !k.way(report) {
		k.skip("the way there failed", stepAEAD, stepMD5)
		return
	}
	k.accounts(ctx, stepAEAD, v)
	if forced, byEnv := vmess.AEADForced(k.opt.LookupEnv, k.cfg.AEADForced); forced {
		k.add(stepMD5, diagnose.Skip, 0, "MD5 clients are refused, by "+k.forcedBy(byEnv))
		return
	}
	v.legacy = true
	k.accounts(ctx, stepMD5, v)
}

// way adds the steps to an upgraded connection, and reports whether they went
// well.
func (k *checker) way(report *diagnose.Report) bool {
	well := true
	for _, step := range report.Steps {
		switch {
		case step.Name != stepTLS && step.Name != stepUpgrade:
		case step.Status == diagnose.Fail:
			k.fail(step.Name, step.Took, report.Verdict)
			well = false
		default:
			k.add(step.Name, step.Status, step.Took, step.Detail)
		}
	}
	return well
}

func (k *checker) forcedBy(env bool) string {
	if env {
		return "V2RAY_VMESS_AEAD_FORCED"
	}
	return `"aeadForced"`
}

// mostUsers bounds how many users a trial tries.
const mostUsers = 100

// accounts adds what came of a request of each user.
func (k *checker) accounts(ctx context.Context, step string, v visit) {
	start := time.Now()
	for i := range min(len(k.cfg.Users), mostUsers) {
		v.user = i
		report, err := k.walk(ctx, v)
		if err != nil {
			k.fail(step, time.Since(start), notStarted("client", err, k.file()))
			return
		}
		if !accepted(report) {
			refused := report.Verdict
			refused.Sentence = k.key(fmt.Sprintf("users[%d]", i)) + ": " + refused.Sentence
			k.fail(step, time.Since(start), refused)
			return
		}
	}
	k.add(step, diagnose.Pass, time.Since(start), "an answer came through for "+k.tried())
}

// tried says for whom a trial was made.
func (k *checker) tried() string {
	switch all := len(k.cfg.Users); {
	case all > mostUsers:
		return fmt.Sprintf("each of the first %d of %d users", mostUsers, all)
	case all > 1:
		return fmt.Sprintf("each of %d users", all)
	case k.cfg.Users[0].Name != "":
		return fmt.Sprintf("the user %q", k.cfg.Users[0].Name)
	}
	return "the user"
}

// accepted reports whether the server has accepted the account, and led to the
// destination if there was one.
func accepted(report *diagnose.Report) bool {
	for _, s := range report.Steps {
		switch {
		case s.Name == diagnose.StepAccount && s.Status != diagnose.Pass, s.Name == diagnose.StepDestination && s.Status == diagnose.Fail:
			return false
		}
	}
	return true
}

// A visit is how a server with these users is gone through.
type visit struct {
	host   string
	port   int
	user   int          // which of the configured ones
	target netaddr.Addr // the zero value is none
	legacy bool         // with MD5
}

// walk checks the way through a server as a client does.
func (k *checker) walk(ctx context.Context, v visit) (*diagnose.Report, error) {
	cfg := config.DefaultClient()
	cfg.Heal = config.Heal{}
	r := &cfg.Server
	r.Name, r.Address, r.Port = "this server", v.host, v.port
	r.ID = k.cfg.Users[v.user].ID
	r.WS.Path, r.WS.Host = k.cfg.WS.Path, k.cfg.WS.Host
	if r.TLS.Enabled = k.pin != ""; r.TLS.Enabled {
		r.TLS.Pin = []string{k.pin}
	}
	env := func(string) (string, bool) { return "", false }
	if v.legacy {
		r.AlterID = k.cfg.Users[v.user].AlterID
		env = func(string) (string, bool) { return "true", true }
	}
	if err := cfg.Normalize(); err != nil {
		return nil, err
	}
	return client.Check(ctx, cfg, client.Options{LookupEnv: env}, v.target)
}

// readPin reads what the certificate is known by; nothing without TLS.
func (k *checker) readPin() error {
	if k.cfg.TLS.CertFile == "" || k.pin != "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(k.cfg.TLS.CertFile, k.cfg.TLS.KeyFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	sum := sha256.Sum256(pair.Certificate[0])
	k.pin = hex.EncodeToString(sum[:])
	return nil
}

// parsed returns the certificates of a file, all of which could be parsed when
// the configuration was read.
func parsed(pair tls.Certificate) (chain []*x509.Certificate) {
	for _, der := range pair.Certificate {
		if cert, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, cert)
		}
	}
	return chain
}

// An origin is the one destination of a trial: everything else is refused.
type origin struct {
	listener net.Listener
	http     *http.Server
}

var _ transport.StreamDialer = (*origin)(nil)

func newOrigin() (*origin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return &origin{ln, &http.Server{Handler: answer, ReadHeaderTimeout: 10 * time.Second}}, nil
}

func (o *origin) serve() error {
	if err := o.http.Serve(o.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (o *origin) close() {
	_ = o.http.Close()
	_ = o.listener.Close()
}

// DialStream implements transport.StreamDialer.
func (o *origin) DialStream(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
	if !strings.EqualFold(dst.Host(), originName) {
		return nil, fmt.Errorf("dial the origin: %w", syscall.ECONNREFUSED)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("dial the origin: %w", err)
	}
	if _, err := conn.Write(first); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("dial the origin: %w", err)
	}
	return tcpconn.New(conn.(*net.TCPConn)), nil
}
