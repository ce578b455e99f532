package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/cli/control"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/gcpacer"
	"vmess-local/pkg/server"
	"vmess-local/pkg/serverinit"
)

func newRunCommand() *cobra.Command {
	var (
		file string
		log  cli.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the server",
		Long: `Run serves until Ctrl-C (which takes no new request and lets those that run end
for limits.drain; a second one leaves at once).

V2RAY_VMESS_AEAD_FORCED=false accepts legacy MD5 clients besides VMessAEAD, and
wins over "aeadForced" in the configuration, as does any other value. Clients
with an "alterId" need their user to have it too.`,
		Example: `  vmess-server run -c server.json
  V2RAY_VMESS_AEAD_FORCED=false vmess-server run -c server.json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := log.Check(); err != nil {
				return err
			}
			if file == "" {
				return cli.Usagef("no configuration given\nfix: vmess-server run -c FILE; vmess-server init writes one")
			}
			cfg, warnings, err := loadConfig(file)
			if err != nil {
				return unusable(err)
			}
			logger, err := log.New(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format, cfg.Log.File)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				logger.Warn(w)
			}
			s, err := server.New(cfg, server.Options{Log: logger.Logger, Load: new(gcpacer.Pacer).Add})
			if err != nil {
				return startError(cfg, err)
			}
			full, err := filepath.Abs(file)
			if err != nil {
				full = file
			}
			self := func() control.Instance { return control.Instance{Listen: s.Addr().String(), Config: full} }
			defer control.ServeReload("vmess-server", logger.Logger, self, func() error { return reload(s, logger, file) })()
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`")
	log.Add(cmd)
	return cmd
}

// reload reads the configuration of a running server again.
func reload(s *server.Server, log *cli.Log, file string) error {
	if !config.Rereadable(file) {
		return errors.New("config.unreadable: the configuration came from a pipe, which cannot be read again\nfix: write it to a file and start with -c FILE")
	}
	cfg, _, err := loadConfig(file)
	if err != nil {
		return unusable(err)
	}
	next, err := log.Next(cfg.Log.Level, cfg.Log.Format, cfg.Log.File)
	if err != nil {
		return err
	}
	if err := s.Reload(cfg); err != nil {
		next.Drop()
		if errors.Is(err, server.ErrRestart) {
			return fmt.Errorf("%w\nfix: restart the server: open connections end", err)
		}
		return err
	}
	next.Use()
	return nil
}

// loadConfig reads a configuration, and looks at the files that it names.
// Warnings are for the log.
func loadConfig(file string) (cfg *config.Server, warnings []string, err error) {
	data, warnings, err := config.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if cfg, err = config.ParseServer(file, data); err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, server.Warnings(cfg)...)
	if cfg.TLS.CertFile == "" {
		return cfg, warnings, nil
	}
	var wrong *serverinit.CertificateError
	if !errors.As(serverinit.CheckCertificate(cfg.TLS.CertFile, cfg.TLS.KeyFile), &wrong) {
		return cfg, warnings, nil
	}
	p := config.Problem{Cause: config.CauseValue, Path: "tls.certFile", Message: wrong.Error(), Want: wrong.Want, Err: wrong}
	if wrong.Key {
		p.Path = "tls.keyFile"
	}
	p.File, p.Line, p.Column, _ = cfg.Position(p.Path)
	return nil, nil, &config.Problems{All: []config.Problem{p}}
}

// unusable is the usage error of a configuration that cannot be used.
func unusable(err error) error {
	verdicts, omitted := mistakes(err)
	return &cli.UsageError{Err: cli.NewFindings(err, omitted, verdicts...)}
}

// mistakes are the verdicts on a configuration that cannot be used, and how
// many more there would be.
func mistakes(err error) (all []diagnose.Verdict, omitted int) {
	var problems *config.Problems
	if !errors.As(err, &problems) {
		problems = &config.Problems{All: []config.Problem{{Cause: config.CauseValue, Message: err.Error(), Err: err}}}
	}
	for _, p := range problems.All {
		all = append(all, diagnose.ConfigOfServer(p))
	}
	return all, problems.Omitted
}

// startError tells a port that cannot be had, which may be otherwise the next
// time, from a configuration that cannot work.
func startError(cfg *config.Server, err error) error {
	var port *net.OpError
	if !errors.As(err, &port) {
		return unusable(err)
	}
	facts := diagnose.ListenFacts{Owner: diagnose.PortOwnerOf(cfg.Listen), Free: diagnose.FreeAddress(cfg.Listen)}
	if file, line, column, ok := cfg.Position("listen"); ok {
		facts.Place = fmt.Sprintf("%s:%d:%d", file, line, column)
	}
	return cli.NewFindings(err, 0, diagnose.Listen(err, cfg.Listen, facts))
}
