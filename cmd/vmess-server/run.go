package main

import (
	"github.com/spf13/cobra"

	"vmess-local/pkg/config"
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
wins over "aeadForced" in the configuration, as does any other value.`,
		Example: `  vmess-server run -c config.json
  V2RAY_VMESS_AEAD_FORCED=false vmess-server run -c config.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return program.Usagef("which configuration? vmess-server run -c FILE; vmess-server init writes one")
			}
			data, warnings, err := config.ReadFile(file)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			cfg, err := config.ParseServer(file, data)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			logger, err := log.New(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				logger.Warn(w)
			}
			s, err := server.New(cfg, server.Options{Log: logger})
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`")
	log.Add(cmd)
	return cmd
}
