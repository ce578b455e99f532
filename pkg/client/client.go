// Package client assembles vmess-local: from a configuration to a running
// local proxy whose connections travel as VMess in WebSocket to the server.
// The data's way is socks, dispatch, vmess, wsconn, netdial.
//
// Other programs can embed it: [New] with a configuration of theirs and
// [Options] for a listener, a logger and a dialer of their own, then
// [Client.Run]. It touches nothing of the process: no signals, no standard
// streams, no default logger.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/listen"
	"vmess-local/pkg/host/netmon"
	"vmess-local/pkg/inbound/udp"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/status"
	"vmess-local/pkg/status/stats"
)

const (
	// firstWait is how long an application may take to speak first. Those that
	// do have their first bytes ready; those that do not (SSH, SMTP) lose no
	// more than this.
	firstWait = 5 * time.Millisecond
	// healthyFor is how long a proof that the server accepts us counts.
	healthyFor = 10 * time.Second
)

// Options are what a configuration file does not hold.
type Options struct {
	// Log gets the client's talk; nil discards it.
	Log *slog.Logger
	// LookupEnv looks up environment variables; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Now is this computer's clock; nil means time.Now.
	Now func() time.Time
	// Resolver turns the server's name into addresses; nil means the system's.
	Resolver netdial.Resolver
	// DialTCP is how the server, or the upstream proxy, is connected to at an
	// "ip:port", with network "tcp"; nil dials as programs do. It obeys ctx,
	// which must not affect the connection afterwards, and is called
	// concurrently. TLS and WebSocket are the client's own.
	DialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listener is served instead of one on the configured address. Run closes
	// it.
	Listener net.Listener
	// Watcher notices sleep and changes of networks; nil watches this computer.
	Watcher *netmon.Monitor
	// OnListen, if set, is called when the local port serves: at the start of Run,
	// and in a Reload that moves the port. It must not call the Client.
	OnListen func(SetupHints)
	// OnStep, if set, is told of each step of a Check as it ends.
	OnStep func(diagnose.CheckStep)
	// Reload reads the configuration again, for the status page; nil where it
	// cannot be read again.
	Reload func() error
	// Load, if set, is called with 1 when a request begins and with -1 when it has
	// ended, concurrently.
	Load func(by int)
	// PageToken is the secret in the status page's address; empty means a
	// fresh one.
	PageToken string

	board *stats.Registry // the Client's
	room  *fdBudget       // likewise
	self  *listen.Self    // likewise
}

// A Client is an assembled vmess-local. Its port is bound from New on.
type Client struct {
	opt Options

	mu       sync.Mutex
	listener *sharedListener
	now      *generation
	retired  sync.WaitGroup       // generations that are ending
	leaving  map[*generation]bool // those
	// pastDatagrams is what the associations of ended generations did.
	pastDatagrams datagramTotals
	resent        atomic.Int64   // by retired generations
	page          *status.Page   // nil when off
	stopPage      func()         // nil when no page runs
	served        *status.Page   // the one that runs
	paged         sync.WaitGroup // pages that run
	run           *running       // not nil while Run runs
	over          bool           // Run has ended, or is about to
}

// running is what a Run in progress is made of.
type running struct {
	ctx    context.Context // streams and all else end with it: the drain is over
	failed chan error      // of serving
}

// fail ends Run.
func (r *running) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// A startupRecord is said at the start of Run.
type startupRecord struct {
	level slog.Level
	msg   string
	attrs []any
}

// A ListenError means that the local address cannot be listened on. Its text
// is the cause and, in a second line, the fix.
type ListenError struct {
	Addr    string
	Verdict diagnose.Verdict
	Err     error
}

// Error implements error.
func (e *ListenError) Error() string { return e.Verdict.Line() + "\n" + e.Verdict.FixLine() }

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

// New assembles a client and binds its port. cfg must come from the package
// config's parser, or have passed [config.Client.Normalize], and not change
// afterwards. A client that is not run must be
// closed.
func New(cfg *config.Client, opt Options) (*Client, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.LookupEnv == nil {
		opt.LookupEnv = os.LookupEnv
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Watcher == nil {
		opt.Watcher = &netmon.Monitor{Now: opt.Now}
	}
	opt.board, opt.room, opt.self = stats.NewRegistry(), newFDBudget(), new(listen.Self)
	opt.room.configure(cfg)
	g, err := newGeneration(cfg, opt)
	if err != nil {
		return nil, err
	}
	ln := &sharedListener{Listener: opt.Listener}
	if opt.Listener == nil {
		if ln, err = openPort(cfg); err != nil {
			g.fleet.close()
			return nil, err
		}
	}
	c := &Client{opt: opt, listener: ln, now: g, leaving: map[*generation]bool{}, pastDatagrams: datagramTotals{dropped: map[udp.Drop]int64{}}}
	g.local = ln.Addr().String()
	opt.self.Set(g.local)
	if c.page, err = c.newPage(cfg); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// listenError explains why addr, the value of key, cannot be listened on.
func listenError(cfg *config.Client, key, addr string, err error) error {
	return &ListenError{addr, diagnose.Listen(err, addr, diagnose.ListenFacts{
		Key: key, Place: strings.TrimPrefix(place(cfg, key), " at "), Owner: diagnose.PortOwnerOf(addr), Free: diagnose.FreeAddress(addr),
	}), err}
}

// Addr returns the address of the local proxy, with the real port.
func (c *Client) Addr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listener.Addr()
}

// StatusURL returns the status page's address with its token, "" when it is off.
func (c *Client) StatusURL() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil {
		return ""
	}
	return c.page.URL()
}

// Close gives the ports back. It is for a client that was not run.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.now.fleet.close()
	err := c.listener.Listener.Close()
	if c.page != nil {
		err = errors.Join(err, c.page.Close())
	}
	return err
}

// Resent returns how many requests were sent again because the server had
// refused them by mistake.
func (c *Client) Resent() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resent.Load() + c.now.resent()
}

// Run serves until ctx is done, and then drains for up to the configured time.
// It returns nil then, and otherwise why it could not go on.
func (c *Client) Run(ctx context.Context) error {
	streams, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	run := &running{ctx: streams, failed: make(chan error, 1)}
	c.mu.Lock()
	c.run = run
	if mistake := vmess.AEADDisabledMistake(c.opt.LookupEnv); mistake != "" {
		c.opt.Log.Warn("environment", logging.Text("%s", mistake))
	}
	c.now.logStartup()
	addr := c.listener.Addr().String()
	c.opt.Log.Info(logging.Ready, logging.Text("ready: SOCKS5 and HTTP proxy on %s", addr), "listen", addr)
	c.now.serve(run, c.listener.acquire())
	c.servePage(run)
	hints := hintsFor(addr, c.now.asks())
	c.mu.Unlock()
	c.listening(hints)
	defer func() { cut(); c.paged.Wait() }()

	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.opt.Watcher.Watch(streams, c.onNetworkChange)
	}()
	defer func() { cut(); <-watched }()

	var err error
	select {
	case <-ctx.Done():
	case err = <-run.failed:
	}
	c.mu.Lock()
	c.over = true
	last, drain := c.now, time.Duration(c.now.cfg.Limits.Drain)
	_ = c.listener.Listener.Close()
	for g := range c.leaving {
		c.retired.Go(func() { _ = g.drain(streams) }) // their associations are not waited for any more
	}
	c.mu.Unlock()
	end := time.AfterFunc(drain, cut)
	defer end.Stop()
	last.stop()
	if last.drain(streams) != nil && err == nil {
		c.opt.Log.Info("stopped", logging.Text("stopped: connections that were still open after %v were cut", drain))
	}
	c.retired.Wait()
	last.fleet.close()
	return err
}

// listening calls OnListen.
func (c *Client) listening(h SetupHints) {
	if c.opt.OnListen != nil {
		c.opt.OnListen(h)
	}
}

// Reload goes on with another configuration. On an error all stays as it was.
// Connections that are open go on with the old one, and UDP associations until
// they are idle. It may be called while Run runs, concurrently too.
func (c *Client) Reload(cfg *config.Client) error {
	next, err := newGeneration(cfg, c.opt)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.now
	switch {
	case c.over || c.run == nil:
		err = ErrNotRunning
	case cfg.Listen == old.cfg.Listen && !c.listener.movable():
		err = fmt.Errorf("%s cannot be handed over: %w", c.listener.Addr(), errors.ErrUnsupported)
	default:
		err = c.movePorts(cfg)
	}
	if err != nil {
		next.fleet.close()
		return err
	}
	old.stop()
	c.opt.room.configure(cfg)
	c.now = next
	next.local, next.again = c.listener.Addr().String(), true
	c.opt.self.Set(next.local)
	next.logStartup()
	c.opt.Log.Info("reloaded", logging.Text("reloaded: SOCKS5 and HTTP proxy on %s; open connections go on as they were", next.local), "listen", next.local)
	if next.local != old.local {
		c.listening(hintsFor(next.local, next.asks()))
	}
	next.serve(c.run, c.listener.acquire())
	if c.page != c.served {
		c.servePage(c.run)
	}
	c.retire(old)
	return nil
}

// servePage serves the page, if there is one, in place of the one before. It is
// called with the lock held.
func (c *Client) servePage(run *running) {
	if c.stopPage != nil {
		c.stopPage()
		c.stopPage, c.served = nil, nil
	}
	if c.page == nil {
		return
	}
	page := c.page
	ctx, stop := context.WithCancel(run.ctx)
	c.stopPage, c.served = stop, page
	c.opt.Log.Info(logging.Status, logging.Text("status: %s", page.URL()), "url", page.URL())
	c.paged.Go(func() { _ = page.Run(ctx) })
}

// retire lets a generation's connections come to their end. It is called with
// the lock held.
func (c *Client) retire(old *generation) {
	ctx := c.run.ctx
	c.leaving[old] = true
	c.retired.Go(func() {
		_ = old.retire(ctx)
		c.resent.Add(old.resent())
		c.mu.Lock()
		delete(c.leaving, old)
		c.pastDatagrams.add(old)
		c.mu.Unlock()
		old.fleet.close()
	})
}

// onNetworkChange has all tunnels looked at after a sleep or a change of networks.
func (c *Client) onNetworkChange(e netmon.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range c.leaving {
		g.fleet.onNetworkChange(e)
	}
	c.now.fleet.onNetworkChange(e)
	c.opt.Log.Debug("awake", "slept", e.Slept.String(), "clockSet", e.ClockSet, "moved", e.AddrsChanged, "away", e.Offline)
}

// ErrNotRunning is returned by Reload when nothing runs.
var ErrNotRunning = errors.New("the client is not running")

// newAccount makes the VMess side of a server, and the lines that say what is
// in force; section is where the server stands in the configuration.
func newAccount(cfg *config.Client, section string, s *config.Remote, opt Options) (*vmess.Account, []startupRecord, error) {
	id, err := vmess.ParseID(string(s.ID))
	if err != nil {
		return nil, nil, fmt.Errorf("%s.id: %w", section, err)
	}
	method, err := vmess.ParseMethod(s.Security, s.GlobalPadding, s.AuthenticatedLength)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.security: %w", section, err)
	}
	disabled := vmess.AEADDisabled(opt.LookupEnv)
	var why string
	switch {
	case s.AlterID > 0:
		why = fmt.Sprintf("legacy MD5 authentication, because \"alterId\" is %d%s", s.AlterID, place(cfg, section+".alterId"))
	case disabled:
		why = "legacy MD5 authentication, because V2RAY_VMESS_AEAD_DISABLED is true"
	default:
		why = "VMessAEAD authentication"
	}
	mode, with := "aead", ""
	if s.AlterID > 0 || disabled {
		mode = "legacy"
	}
	if len(cfg.Servers) > 1 {
		with = fmt.Sprintf("server %q: ", nameOf(s))
	}
	hello := []startupRecord{{slog.LevelInfo, "authentication", []any{
		logging.Text("%susing %s", with, why), "mode", mode, "security", method.Security.String(),
	}}}
	for _, warning := range cautions(s) {
		hello = append(hello, startupRecord{slog.LevelWarn, "security", []any{logging.Text("%s%s", with, warning)}})
	}
	return vmess.NewAccount(vmess.AccountConfig{ID: id, AlterID: s.AlterID, AEADDisabled: disabled, Method: method, Now: opt.Now}), hello, nil
}

// nameOf is what a server is called to people.
func nameOf(s *config.Remote) string {
	if s.Name != "" {
		return s.Name
	}
	return s.Address
}

// cautions are what works in a server's settings and may be meant otherwise.
func cautions(s *config.Remote) []string {
	return slices.DeleteFunc([]string{plaintextWarning(s), config.IDWarning(s.ID)}, func(text string) bool { return text == "" })
}

// plaintextWarning warns of settings that leave the traffic readable on its way.
func plaintextWarning(s *config.Remote) string {
	switch {
	case (s.Security == "none" || s.Security == "zero") && !s.TLS.Enabled:
		return "nothing encrypts the traffic: \"security\" is " + s.Security + " and \"tls.enabled\" is false"
	case s.TLS.Enabled && s.TLS.AllowInsecure && len(s.TLS.Pin) == 0:
		return "\"tls.allowInsecure\" accepts any certificate: whoever is on the way can pose as the server; pin its certificate with \"tls.pin\" instead"
	}
	return ""
}

// place tells where a key stands in the user's file, as " at FILE:LINE:COLUMN".
func place(cfg *config.Client, path string) string {
	if file, line, column, ok := cfg.Position(path); ok {
		return fmt.Sprintf(" at %s:%d:%d", file, line, column)
	}
	return ""
}
