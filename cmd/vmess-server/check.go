package main

import (
	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/servercheck"
)

func newCheckCommand() *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "check -c FILE [--json]",
		Short: "Validate the configuration and test the server locally",
		Long: `Check looks at the configuration, the port, the certificate and its key, the
clock, "fallback", the way to the proxy of "egress.dial" and the log file. Then
it starts the server on a free loopback port and goes through it as each user
does, with VMessAEAD and, where MD5 clients are let in, with MD5. It says what
came of each step and, of those that fail, the cause and the fix. It works with
and without a running server, and never touches one. What clients meet on their
way here, like a firewall, only vmess-local check tells, at the client's.

Exit codes: 0 all checks passed (perhaps with warnings), 1 some did not, 2 usage
or configuration error.`,
		Example: `  vmess-server check -c server.json
  vmess-server check -c server.json --json | jq .verdict.fix`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return cli.Usagef("no configuration given\nfix: vmess-server check -c FILE; vmess-server init writes one")
			}
			return check(cmd, file, asJSON)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON, for programs")
	return cmd
}

// check prints what it finds to stdout, and returns [cli.ErrTold] when
// something fails.
func check(cmd *cobra.Command, file string, asJSON bool) error {
	out := cmd.OutOrStdout()
	cfg, warnings, err := loadConfig(file)
	if err != nil {
		all, _ := mistakes(err)
		if err := diagnose.WriteMistakes(out, servercheck.Steps(), all, asJSON); err != nil {
			return err
		}
		return &cli.UsageError{Err: cli.ErrReported}
	}
	report := servercheck.Run(cmd.Context(), cfg, servercheck.Options{Warnings: warnings})
	show := report.WriteText
	if asJSON {
		show = report.WriteJSON
	}
	if err := show(out); err != nil {
		return err
	}
	if !report.OK() {
		return cli.ErrReported
	}
	return nil
}
