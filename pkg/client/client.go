// Package client assembles vmess-local: from a configuration to a running
// local proxy whose connections travel as VMess in WebSocket to the server.
// The data's way is socks, dispatch, vmess, wsconn, netdial.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/dispatch"
	"vmess-local/pkg/limit"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/netdial"
	"vmess-local/pkg/socks"
	"vmess-local/pkg/vmess"
)

const (
	// firstWait is how long an application may take to speak first. Those that
	// do have their first bytes ready; those that do not (SSH, SMTP) lose no
	// more than this.
	firstWait = 5 * time.Millisecond
	// wellFor is how long a proof that the server accepts us counts.
	wellFor = 10 * time.Second
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
	// Listener is served instead of one on the configured address. Run closes
	// it.
	Listener net.Listener
}

// A Client is an assembled vmess-local. Its port is bound from New on.
type Client struct {
	log      *slog.Logger
	listener net.Listener
	front    *socks.Server
	drain    time.Duration
	hello    []helloLine
	guard    *guard
}

// A helloLine is said at the start of Run.
type helloLine struct {
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
// config's parser and not change afterwards. A client that is not run must be
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
	c := &Client{log: opt.Log, drain: time.Duration(cfg.Limits.Drain)}
	account, err := c.account(cfg, opt)
	if err != nil {
		return nil, err
	}
	if c.guard, err = newGuard(cfg, opt, account); err != nil {
		return nil, err
	}
	d := &dispatch.Dispatcher{
		Dialer:    c.guard,
		FirstWait: firstWait,
		Well:      c.guard.well,
		Idle:      time.Duration(cfg.Limits.Idle),
		Reporter:  &reporter{log: opt.Log, guard: c.guard},
	}
	c.front = &socks.Server{
		Handler:   d,
		Dialer:    wording{d},
		Handshake: time.Duration(cfg.Limits.Handshake),
		Idle:      time.Duration(cfg.Limits.Idle),
		MaxConns:  limit.Connections(cfg.Limits.Connections, 2),
		Report:    func(err error, source netip.AddrPort) { c.localFault(cfg, err, source) },
	}
	if cfg.Auth.Username != "" {
		c.front.Auth = &socks.Auth{Username: string(cfg.Auth.Username), Password: string(cfg.Auth.Password)}
	}
	if c.listener = opt.Listener; c.listener == nil {
		if c.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			c.guard.close()
			return nil, listenError(cfg, err)
		}
	}
	return c, nil
}

func listenError(cfg *config.Client, err error) error {
	addr := cfg.Listen
	return &ListenError{addr, diagnose.Listen(err, addr, diagnose.ListenFacts{
		Place: strings.TrimPrefix(place(cfg, "listen"), " at "), Holder: diagnose.HolderOf(addr), Free: diagnose.FreeAddress(addr),
	}), err}
}

// localFault names what went wrong between an application and the proxy.
func (c *Client) localFault(cfg *config.Client, err error, source netip.AddrPort) {
	faults := []struct {
		err   error
		fault diagnose.LocalFault
		key   string
	}{
		{socks.ErrTLS, diagnose.FaultTLS, ""},
		{socks.ErrHandshakeTimeout, diagnose.FaultSilence, ""},
		{socks.ErrBadAuth, diagnose.FaultAuth, "auth"},
		{socks.ErrTooMany, diagnose.FaultTooMany, "limits.connections"},
		{socks.ErrCommand, diagnose.FaultCommand, ""},
		{socks.ErrLoop, diagnose.FaultLoop, ""},
		{socks.ErrBadHandshake, diagnose.FaultNoise, ""},
	}
	for _, f := range faults {
		if !errors.Is(err, f.err) {
			continue
		}
		facts := diagnose.LocalFacts{Listen: c.Addr().String(), Limit: c.front.MaxConns}
		if source.IsValid() {
			facts.Client = source.Addr().String()
		}
		if f.key != "" {
			facts.Place = strings.TrimPrefix(place(cfg, f.key), " at ")
		}
		c.guard.voice.say(diagnose.Local(f.fault, facts))
		return
	}
	c.log.Warn("local side", "err", err)
}

// Addr returns the address of the local proxy, with the real port.
func (c *Client) Addr() net.Addr { return c.listener.Addr() }

// Close gives the port back. It is for a client that was not run.
func (c *Client) Close() error { c.guard.close(); return c.listener.Close() }

// Resent returns how many requests were sent again because the server had
// refused them by mistake.
func (c *Client) Resent() int64 { return c.guard.resent.Load() }

// Run serves until ctx is done, and then drains for up to the configured time.
// It returns nil then, and otherwise why it could not go on.
func (c *Client) Run(ctx context.Context) error {
	for _, l := range c.hello {
		c.log.Log(ctx, l.level, l.msg, l.attrs...)
	}
	addr := c.Addr().String()
	c.log.Info("ready", logline.Text("ready: SOCKS5 and HTTP proxy on %s", addr), "listen", addr)
	defer c.guard.close()
	err := c.front.Serve(ctx, c.listener)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.drain)
	defer cancel()
	if cut := c.front.Drain(drain); cut != nil && err == nil {
		c.log.Info("stopped", logline.Text("stopped: connections that were still open after %v were cut", c.drain))
	}
	return err
}

// account makes the VMess side, and the line that says what is in force.
func (c *Client) account(cfg *config.Client, opt Options) (*vmess.Client, error) {
	s := &cfg.Server
	id, err := vmess.ParseID(string(s.ID))
	if err != nil {
		return nil, fmt.Errorf("server.id: %w", err)
	}
	method, err := vmess.ParseMethod(s.Security, s.GlobalPadding, s.AuthenticatedLength)
	if err != nil {
		return nil, fmt.Errorf("server.security: %w", err)
	}
	disabled := vmess.AEADDisabled(opt.LookupEnv)
	var why string
	switch {
	case s.AlterID > 0:
		why = fmt.Sprintf("legacy MD5 authentication, because \"alterId\" is %d%s", s.AlterID, place(cfg, "server.alterId"))
	case disabled:
		why = "legacy MD5 authentication, because V2RAY_VMESS_AEAD_DISABLED is true"
	default:
		why = "VMessAEAD authentication"
	}
	mode := "aead"
	if s.AlterID > 0 || disabled {
		mode = "legacy"
	}
	c.hello = append(c.hello, helloLine{slog.LevelInfo, "authentication", []any{
		logline.Text("using %s", why), "mode", mode, "security", method.Security.String(),
	}})
	if warning := openPassage(s, method); warning != "" {
		c.hello = append(c.hello, helloLine{slog.LevelWarn, "security", []any{logline.Text("%s", warning)}})
	}
	return vmess.NewClient(vmess.ClientConfig{ID: id, AlterID: s.AlterID, AEADDisabled: disabled, Method: method, Now: opt.Now}), nil
}

// openPassage warns of settings that leave the traffic readable on its way.
func openPassage(s *config.Remote, m vmess.Method) string {
	switch {
	case m.Security == vmess.SecurityNone && !s.TLS.Enabled:
		return "nothing encrypts the traffic: \"security\" is " + s.Security + " and \"tls.enabled\" is false"
	case s.TLS.Enabled && s.TLS.AllowInsecure:
		return "\"tls.allowInsecure\" accepts any certificate: whoever is on the way can pose as the server; pin its certificate with \"tls.pin\" instead"
	}
	return ""
}

// place tells where a key stands in the user's file, as " at FILE:LINE:COLUMN".
func place(cfg *config.Client, path string) string {
	if file, line, column, ok := cfg.Place(path); ok {
		return fmt.Sprintf(" at %s:%d:%d", file, line, column)
	}
	return ""
}
