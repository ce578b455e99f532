package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/cli/control"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/host/gcpacer"
)

func newRunCommand() *cobra.Command {
	var (
		file, listen string
		log          cli.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "run [-c FILE | LINK] [--listen ADDR]",
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
  vmess-local run 'vmess://eyJ2IjoiMiIsImFkZCI6…' --listen 127.0.0.1:1090
  vmess-local run -c - < config.json`,
		Args: cli.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			source := file
			if len(args) > 0 {
				if cmd.Flags().Changed("config") {
					return cli.Usagef("a configuration and a link are given\nfix: give only one of them: %s", cmd.UseLine())
				}
				source = args[0]
			}
			if err := log.Check(); err != nil {
				return err
			}
			at := listenFlag{addr: listen, given: cmd.Flags().Changed("listen")}
			cfg, warnings, err := loadConfig(cmd, source)
			if err != nil {
				return unusable(err)
			}
			if err := at.override(cfg); err != nil {
				return unusable(err)
			}
			logger, err := log.New(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format, cfg.Log.File)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				logger.Warn(w)
			}
			r := &reloader{log: logger, listen: at}
			if !isLink(source) && source != "-" {
				r.file, r.load = absolute(cmd, source), func() (*config.Client, error) {
					cfg, _, err := loadConfig(cmd, source)
					if err == nil {
						err = at.override(cfg)
					}
					return cfg, err
				}
			}
			if r.client, err = client.New(cfg, client.Options{
				Log: logger.Logger, OnListen: logHints(logger.Logger), Reload: r.again, PageToken: pageToken(), Load: new(gcpacer.Pacer).Add,
			}); err != nil {
				return startError(cfg, at, err)
			}
			return r.serve(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, a link, or - for standard input")
	cmd.Flags().StringVar(&listen, "listen", "", "local proxy's `ADDR`, in place of the configuration's \"listen\"")
	log.Add(cmd)
	return cmd
}

// pageToken is the status page's token, which stays the same, so that a page
// that is open comes back with the program. It is fresh at each start where
// none can be kept.
func pageToken() string {
	dir, err := control.Dir("vmess-local", os.LookupEnv)
	if err != nil {
		return ""
	}
	token, err := control.Secret(dir, "page")
	if err != nil {
		return ""
	}
	return token
}

// startError tells a port that cannot be had, which may be otherwise the next
// time, from a configuration that cannot work.
func startError(cfg *config.Client, at listenFlag, err error) error {
	var port *client.ListenError
	if errors.As(err, &port) {
		return cli.NewFindings(err, 0, at.blamed(cfg, port.Verdict))
	}
	return unusable(placed(cfg, err))
}

// A listenFlag is where the command line wants the local proxy.
type listenFlag struct {
	addr  string
	given bool
}

// override puts the flag's address in place of the configuration's.
func (f listenFlag) override(cfg *config.Client) error {
	if !f.given {
		return nil
	}
	cfg.Listen = f.addr
	err := cfg.Normalize()
	var problems *config.Problems
	if errors.As(err, &problems) {
		for i := range problems.All {
			if p := &problems.All[i]; p.Path == "listen" {
				p.Path = "--listen"
			}
		}
	}
	return err
}

// blamed names the flag, not the configuration, where its address cannot be
// listened on.
func (f listenFlag) blamed(cfg *config.Client, v diagnose.Verdict) diagnose.Verdict {
	if !f.given {
		return v
	}
	key := `"listen"`
	if file, line, column, ok := cfg.Position("listen"); ok {
		key += fmt.Sprintf(" at %s:%d:%d", file, line, column)
	}
	v.Fix = strings.ReplaceAll(v.Fix, key, "--listen")
	return v
}
