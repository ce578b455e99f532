package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/client"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/logline"
	"vmess-local/pkg/netaddr"
	"vmess-local/pkg/program"
)

func newCheckCommand() *cobra.Command {
	var (
		file, target string
		asJSON       bool
	)
	cmd := &cobra.Command{
		Use:   "check [-c FILE | LINK] [--json] [--target HOST:PORT]",
		Short: "Walk the way to the server step by step and name what fails",
		Long: `Check walks the way step by step: configuration, DNS, TCP, TLS, WebSocket
upgrade, account, clock, and with --target a destination behind the server. It
says what came of each and, of the first that fails, the cause and the fix. It
works with and without a running client, and never touches one. Where the
configuration is looked for is told by vmess-local run --help.

What vmess-local run puts right by itself, like a wrong clock, is marked "heal",
with what to change so that nothing needs healing. All is not well then.

Exit codes: 0 all is well, 1 it is not (healed or not), 2 usage or
configuration error.`,
		Example: `  vmess-local check
  vmess-local check 'vmess://eyJ2IjoiMiIsImFkZCI6…'
  vmess-local check -c config.json --target www.example.com:443
  vmess-local check --json | jq .verdict.fix`,
		Args: program.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			source := file
			if len(args) > 0 {
				if cmd.Flags().Changed("config") {
					return program.Usagef("a configuration and a link\nfix: give one of them: %s", cmd.UseLine())
				}
				source = args[0]
			}
			var dst netaddr.Addr
			if target != "" {
				var err error
				if dst, err = netaddr.Parse(target); err != nil || dst.Port() == 0 {
					return program.Usagef("--target: saw %s\nfix: write HOST:PORT, like www.example.com:443", program.Show(target))
				}
			}
			return check(cmd, source, dst, asJSON)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, a link, or - for standard input")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON, for programs")
	cmd.Flags().StringVar(&target, "target", "", "reach `HOST:PORT` through the server, too")
	return cmd
}

// check prints what it finds to stdout, and returns [program.ErrTold] unless
// all is well.
func check(cmd *cobra.Command, source string, target netaddr.Addr, asJSON bool) error {
	cfg, warnings, err := loadConfig(source, cmd.InOrStdin())
	if err != nil {
		return tellMistakes(cmd.OutOrStdout(), err, asJSON)
	}
	log := slog.New(logline.New(cmd.ErrOrStderr(), slog.LevelWarn, false))
	for _, w := range warnings {
		log.Warn(w)
	}
	report, err := client.Check(cmd.Context(), cfg, client.Options{}, target)
	if err != nil {
		return tellMistakes(cmd.OutOrStdout(), placed(cfg, err), asJSON)
	}
	show := report.WriteText
	if asJSON {
		show = report.WriteJSON
	}
	if err := show(cmd.OutOrStdout()); err != nil {
		return err
	}
	if !report.OK() {
		return program.ErrTold
	}
	return nil
}

// tellMistakes tells why there is no configuration to check. In JSON the verdict
// is that of the first mistake, and those of the others are its evidence.
func tellMistakes(w io.Writer, err error, asJSON bool) error {
	all := mistakes(err)
	r := &diagnose.Report{Verdict: all[0]}
	r.Add(diagnose.StepConfiguration, diagnose.Fail, 0, "")
	r.Complete()
	var text strings.Builder
	for i, v := range all {
		fmt.Fprintf(&text, "error: %s\n%s\n", v.Line(), v.FixLine())
		if i > 0 {
			r.Verdict.Evidence = append(r.Verdict.Evidence, v.Line(), v.FixLine())
		}
	}
	if asJSON {
		err = r.WriteJSON(w)
	} else {
		_, err = io.WriteString(w, text.String())
	}
	if err != nil {
		return err
	}
	return &program.UsageError{Err: program.ErrTold}
}
