package main

import (
	"errors"

	"github.com/spf13/cobra"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/program"
)

func newRunCommand() *cobra.Command {
	var (
		file string
		log  program.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "run [-c FILE | LINK]",
		Short: "Run the local proxy",
		Long: `Run opens the local port and carries its connections to the server until Ctrl-C
(which lets open connections end for limits.drain; a second one leaves at once).

The configuration is FILE ("-" is standard input), or a vmess:// share link with
defaults for all else; without either ./config.json, then the file
vmess-local/config.json in your configuration directory. config.example.json
explains every key.

V2RAY_VMESS_AEAD_DISABLED=true makes it speak the legacy MD5 authentication that
servers older than V2Ray 4.28.1 need. Newer servers refuse it.`,
		Example: `  vmess-local run -c config.json
  vmess-local run 'vmess://eyJ2IjoiMiIsImFkZCI6…'
  vmess-local run -c - < config.json`,
		Args: program.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			source := file
			if len(args) > 0 {
				if cmd.Flags().Changed("config") {
					return program.Usagef("a configuration and a link\nfix: give one of them: %s", cmd.UseLine())
				}
				source = args[0]
			}
			if err := log.Check(); err != nil {
				return err
			}
			cfg, warnings, err := loadConfig(source, cmd.InOrStdin())
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
			c, err := client.New(cfg, client.Options{Log: logger})
			if err != nil {
				return startError(placed(cfg, err))
			}
			r := &reloader{client: c, log: logger, now: cfg}
			if !isLink(source) && source != "-" {
				r.load = func() (*config.Client, error) {
					cfg, _, err := loadConfig(source, nil)
					return cfg, err
				}
			}
			return r.serve(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, a link, or - for standard input")
	log.Add(cmd)
	return cmd
}

// startError tells a port that cannot be had, which may be otherwise the next
// time, from a configuration that cannot work.
func startError(err error) error {
	var port *client.ListenError
	if errors.As(err, &port) {
		return err
	}
	return unusable(err)
}
