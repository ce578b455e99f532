package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/program"
	"vmess-local/pkg/server"
)

func newRunCommand() *cobra.Command {
	var (
		file string
		log  program.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Serve",
		Long: `Run serves until Ctrl-C (which lets open connections end for limits.drain; a
second one leaves at once).

V2RAY_VMESS_AEAD_FORCED=false accepts legacy MD5 clients besides VMessAEAD, and
wins over "aeadForced" in the configuration, as does any other value. Clients
with an "alterId" need their user to have it too.`,
		Example: `  vmess-server run -c server.json
  V2RAY_VMESS_AEAD_FORCED=false vmess-server run -c server.json`,
		Args: program.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := log.Check(); err != nil {
				return err
			}
			if file == "" {
				return program.Usagef("which configuration?\nfix: vmess-server run -c FILE; vmess-server init writes one")
			}
			data, warnings, err := config.ReadFile(file)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			cfg, err := config.ParseServer(file, data)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			logger, err := log.New(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format, cfg.Log.File)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				logger.Warn(w)
			}
			s, err := server.New(cfg, server.Options{Log: logger})
			if err != nil {
				return startError(cfg, err)
			}
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`")
	log.Add(cmd)
	return cmd
}

// startError tells a port that cannot be had, which may be otherwise the next
// time, from a configuration that cannot work.
func startError(cfg *config.Server, err error) error {
	var port *net.OpError
	if !errors.As(err, &port) {
		return &program.UsageError{Err: err}
	}
	facts := diagnose.ListenFacts{Holder: diagnose.HolderOf(cfg.Listen)}
	if file, line, column, ok := cfg.Place("listen"); ok {
		facts.Place = fmt.Sprintf("%s:%d:%d", file, line, column)
	}
	verdict := diagnose.Listen(err, cfg.Listen, facts)
	return errors.New(verdict.Line() + "\n" + verdict.FixLine())
}
