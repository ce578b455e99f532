// Package servercheck walks through what a server's owner can get wrong before
// anybody connects: files, certificate, port, clock, ways out; and then starts
// the server for a moment on a free loopback port and goes through it with the
// client, to a destination of its own.
package servercheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/protocol/vmess"
)

// The names of the steps, in the order in which they are taken.
const (
	stepConfiguration = diagnose.StepConfiguration
	stepListen        = "listen"
	stepCertificate   = "certificate"
	stepKey           = "key"
	stepClock         = diagnose.StepClock
	stepFallback      = "fallback"
	stepEgress        = "egress"
	stepStatus        = "status"
	stepLog           = "log"
	stepStart         = "start"
	stepTLS           = diagnose.StepTLS
	stepUpgrade       = diagnose.StepUpgrade
	stepAEAD          = "aead"
	stepMD5           = "md5"
)

// Steps returns the names of all steps in order.
func Steps() []string {
	return []string{
		stepConfiguration, stepListen, stepCertificate, stepKey, stepClock, stepFallback, stepEgress, stepStatus, stepLog,
		stepStart, stepTLS, stepUpgrade, stepAEAD, stepMD5,
	}
}

// Options are what a configuration does not hold.
type Options struct {
	// Warnings are those of reading the configuration's file.
	Warnings []string
	// LookupEnv looks up environment variables; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Now is this computer's clock; nil means time.Now.
	Now func() time.Time
}

// Run checks a server's configuration, whose certificate has been found to be
// one. The configured port is bound for a moment at the most, and a server that
// runs is not disturbed. No address but loopback and that of "egress.dial" is
// connected to.
func Run(ctx context.Context, cfg *config.Server, opt Options) *diagnose.Report {
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	k := &checker{cfg: cfg, opt: opt, report: &diagnose.Report{Server: cfg.Listen}}
	k.configuration()
	k.listen(ctx)
	k.certificate()
	k.clock()
	k.fallback()
	k.egress(ctx)
	k.status()
	k.log()
	k.liveTest(ctx)
	return k.report
}

// A checker is one check under way.
type checker struct {
	cfg    *config.Server
	opt    Options
	report *diagnose.Report
	pin    string // of the certificate; "" without TLS

	noFallback bool // its directory cannot be used
}

func (k *checker) add(step string, status diagnose.Status, took time.Duration, detail string) {
	k.report.Add(step, status, took, detail)
}

// fail adds a step that failed.
func (k *checker) fail(step string, took time.Duration, v diagnose.Verdict) {
	k.add(step, diagnose.Fail, took, "")
	if k.report.Verdict.IsZero() {
		k.report.Verdict = v
		return
	}
	k.report.Others = append(k.report.Others, v)
}

// key names a key of the configuration, with its place.
func (k *checker) key(path string) string {
	if place := k.place(path); place != "" {
		return fmt.Sprintf("%q at %s", path, place)
	}
	return fmt.Sprintf("%q", path)
}

func (k *checker) place(path string) string {
	if file, line, column, ok := k.cfg.Position(path); ok {
		return fmt.Sprintf("%s:%d:%d", file, line, column)
	}
	return ""
}

func (k *checker) file() string {
	file, _, _, _ := k.cfg.Position("listen")
	return file
}

func (k *checker) configuration() {
	warnings := k.opt.Warnings
	if mistake := vmess.AEADForcedMistake(k.opt.LookupEnv); mistake != "" {
		warnings = append(slices.Clone(warnings), mistake)
	}
	if len(warnings) > 0 {
		k.add(stepConfiguration, diagnose.Warn, 0, strings.Join(warnings, "; "))
		return
	}
	k.add(stepConfiguration, diagnose.Pass, 0, k.file())
}

// listen looks whether the port can be had. That a vmess-server has it is how
// it should be.
func (k *checker) listen(ctx context.Context) {
	err := bind(k.cfg.Listen)
	if err == nil {
		k.add(stepListen, diagnose.Pass, 0, k.cfg.Listen+" is free")
		return
	}
	facts := diagnose.ListenFacts{Place: k.place("listen"), Owner: diagnose.PortOwnerOf(k.cfg.Listen), Free: diagnose.FreeAddress(k.cfg.Listen)}
	v := diagnose.Listen(err, k.cfg.Listen, facts)
	switch {
	case v.Cause != diagnose.ListenInUse:
	case facts.Owner.Name == "vmess-server":
		k.add(stepListen, diagnose.Pass, 0, fmt.Sprintf("the running vmess-server (process %d) has %s", facts.Owner.PID, k.cfg.Listen))
		return
	case facts.Owner.PID == 0 && k.serves(ctx):
		k.add(stepListen, diagnose.Pass, 0, "a running server that knows these users has "+k.cfg.Listen)
		return
	}
	k.fail(stepListen, 0, v)
}

func bind(addr string) error {
	ln, err := listen.TCP(addr)
	if err != nil {
		return err
	}
	return ln.Close()
}

// serves reports whether whoever has the port accepts our users: others'
// processes have no name for us.
func (k *checker) serves(ctx context.Context) bool {
	host, text, err := net.SplitHostPort(listen.Here(k.cfg.Listen))
	port, portErr := strconv.Atoi(text)
	if err != nil || portErr != nil {
		return false
	}
	if err := k.readPin(); err != nil {
		return false
	}
	report, err := k.walk(ctx, visit{host: host, port: port})
	return err == nil && accepted(report)
}

// certificate judges what clients will make of the certificate.
func (k *checker) certificate() {
	if k.cfg.TLS.CertFile == "" {
		for _, step := range []string{stepCertificate, stepKey} {
			k.add(step, diagnose.Skip, 0, `"tls.certFile" is empty: plain WebSocket`)
		}
		return
	}
	pair, err := tls.LoadX509KeyPair(k.cfg.TLS.CertFile, k.cfg.TLS.KeyFile)
	if err != nil { // since it was looked at when the configuration was read
		k.fail(stepCertificate, 0, mistake(err.Error(), "name the certificate's files again: "+k.key("tls.certFile")))
		return
	}
	own := diagnose.ServerCertificate{
		Chain: parsed(pair), Host: k.cfg.WS.Host, Now: k.opt.Now(),
		CertKey: k.key("tls.certFile"), HostKey: k.key("ws.host"),
	}
	status, detail, v := own.Check()
	if v.IsZero() {
		k.add(stepCertificate, status, 0, detail)
	} else {
		k.fail(stepCertificate, 0, v)
	}
	if warning := config.Exposed(k.cfg.TLS.KeyFile); warning != "" {
		k.add(stepKey, diagnose.Warn, 0, warning)
		return
	}
	k.add(stepKey, diagnose.Pass, 0, k.cfg.TLS.KeyFile)
}

// mistake is the verdict on a value of the configuration.
func mistake(sentence, fix string) diagnose.Verdict {
	return diagnose.Verdict{Cause: diagnose.ConfigValue, Confidence: diagnose.Certain, Sentence: sentence, Fix: fix}
}

// clockBlur is how far the clock of a file system may be from ours.
const clockBlur = 2 * time.Minute

// clock tells what this computer alone can know of its clock: that it stands
// before what has happened already, and whether something keeps it right.
func (k *checker) clock() {
	now := k.opt.Now()
	for _, name := range []string{k.file(), k.cfg.TLS.CertFile, k.cfg.TLS.KeyFile} {
		info, err := os.Stat(name)
		if name == "" || err != nil || !info.ModTime().After(now.Add(clockBlur)) {
			continue
		}
		k.fail(stepClock, 0, diagnose.Verdict{
			Cause: diagnose.VMessClockSkew, Confidence: diagnose.Likely,
			Sentence: fmt.Sprintf("this computer's clock says %s, but %s was written on %s", now.UTC().Format(time.DateTime), name, info.ModTime().UTC().Format(time.DateTime)),
			Fix:      "set this computer's clock: VMess accepts clients that are at most 120 s away",
		})
		return
	}
	switch clockKept() {
	case diagnose.Yes:
		k.add(stepClock, diagnose.Pass, 0, "the system keeps it in time")
	case diagnose.No: // common: in containers the host keeps it
		k.add(stepClock, diagnose.Skip, 0, "whether something keeps it in time cannot be told here; clients may be 120 s away at most")
	default:
		k.add(stepClock, diagnose.Skip, 0, "whether it is right cannot be told here")
	}
}

func (k *checker) fallback() {
	dir := k.cfg.Fallback
	if dir == "" {
		k.add(stepFallback, diagnose.Skip, 0, "visitors get 404")
		return
	}
	if wrong := notDirectory(dir); wrong != "" {
		k.noFallback = true
		k.fail(stepFallback, 0, mistake(dir+` of "fallback" `+wrong, "write a directory that is there, or nothing for 404, as "+k.key("fallback")))
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "index.html")); err != nil {
		k.add(stepFallback, diagnose.Warn, 0, dir+" has no index.html: visitors of / get 404")
		return
	}
	k.add(stepFallback, diagnose.Pass, 0, dir)
}

// notDirectory says why files cannot be served from a directory; "" is fine.
func notDirectory(dir string) string {
	root, err := os.OpenRoot(dir)
	var path *fs.PathError
	switch {
	case err == nil:
		_ = root.Close()
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.As(err, &path):
		return "cannot be used: " + path.Err.Error()
	}
	return "cannot be used: " + err.Error()
}

// egress connects to the proxy of the way out. Where it leads is not tried.
func (k *checker) egress(ctx context.Context) {
	u, err := url.Parse(string(k.cfg.Egress.Dial))
	if err != nil || u.Host == "" {
		k.add(stepEgress, diagnose.Skip, 0, "destinations are dialled directly")
		return
	}
	start := time.Now()
	conn, err := (&net.Dialer{Timeout: time.Duration(k.cfg.Limits.Dial)}).DialContext(ctx, "tcp", u.Host)
	if err == nil {
		_ = conn.Close()
		k.add(stepEgress, diagnose.Pass, time.Since(start), "the proxy "+u.Host+" is there")
		return
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	k.fail(stepEgress, time.Since(start), diagnose.Verdict{
		Cause: diagnose.UpstreamFailed, Confidence: diagnose.Certain,
		Sentence: "the proxy " + u.Host + " of the way out cannot be reached: " + err.Error(),
		Fix:      "start that proxy, or correct " + k.key("egress.dial") + "; nothing there dials directly",
	})
}

func (k *checker) status() {
	if !k.cfg.Status.Enabled {
		k.add(stepStatus, diagnose.Skip, 0, "the page is off")
		return
	}
	at := k.cfg.Status.Listen
	err := bind(at)
	if err == nil {
		k.add(stepStatus, diagnose.Pass, 0, at+" is free")
		return
	}
	facts := diagnose.ListenFacts{Place: k.place("status.listen"), Key: "status.listen", Owner: diagnose.PortOwnerOf(at), Free: diagnose.FreeAddress(at)}
	if facts.Owner.Name == "vmess-server" {
		k.add(stepStatus, diagnose.Pass, 0, fmt.Sprintf("the running vmess-server (process %d) has %s", facts.Owner.PID, at))
		return
	}
	k.fail(stepStatus, 0, diagnose.Listen(err, at, facts))
}

// log opens the log file as the server will. One that was not there is not left
// behind: it would be whose who checks, not the server's.
func (k *checker) log() {
	name := k.cfg.Log.File
	if name == "" {
		k.add(stepLog, diagnose.Skip, 0, "the log goes to stderr")
		return
	}
	_, missing := os.Lstat(name)
	file, err := logging.OpenFile(name)
	if err != nil {
		k.fail(stepLog, 0, mistake(err.Error(), "name a file that the server may write, as "+k.key("log.file")))
		return
	}
	_ = file.Close()
	if errors.Is(missing, fs.ErrNotExist) {
		_ = os.Remove(name)
	}
	k.add(stepLog, diagnose.Pass, 0, name+" can be written")
}
