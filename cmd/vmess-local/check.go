package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

func newCheckCommand() *cobra.Command {
	var (
		file, target string
		q            inquiry
	)
	cmd := &cobra.Command{
		Use:   "check [-c FILE | LINK] [--server NAME] [--target ADDR] [--json]",
		Short: "Test the connection step by step and show what fails",
		Long: `Check walks the way step by step: configuration, DNS, TCP, TLS, WebSocket
upgrade, account, clock, and with --target a destination behind the server. It
says what came of each and, of the first that fails, the cause and the fix. It
works with and without a running client, and never touches one. Where the
configuration is looked for is told by vmess-local run --help. Of several
servers all are walked, one after another.

A target with port 53 (a DNS server) or 3478 (a STUN server) is tested by UDP:
only an answer shows which form the server understands. That it does not answer
by TCP is not a failure then.

What vmess-local run puts right by itself, like a wrong clock, is marked "heal",
with what to change so that nothing needs healing. All is not well then.

Exit codes: 0 all checks passed, 1 some did not (healed or not), 2 usage or
configuration error.`,
		Example: `  vmess-local check
  vmess-local check 'vmess://eyJ2IjoiMiIsImFkZCI6…'
  vmess-local check -c config.json --target www.example.com:443
  vmess-local check --target 192.0.2.53:53
  vmess-local check --json | jq .verdict.fix`,
		Args: cli.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			source := file
			if len(args) > 0 {
				if cmd.Flags().Changed("config") {
					return cli.Usagef("a configuration and a link are given\nfix: give only one of them: %s", cmd.UseLine())
				}
				source = args[0]
			}
			if target != "" {
				var err error
				if q.target, err = netaddr.Parse(target); err != nil || q.target.Port() == 0 {
					return cli.Usagef("--target: saw %s\nfix: write HOST:PORT, like www.example.com:443", cli.Show(target))
				}
			}
			return q.check(cmd, source)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, a link, or - for standard input")
	cmd.Flags().BoolVar(&q.asJSON, "json", false, "print the result as JSON, for programs")
	cmd.Flags().StringVar(&q.server, "server", "", "check only the server called `NAME`, of several")
	cmd.Flags().StringVar(&target, "target", "", "also reach `ADDR` (HOST:PORT) through the server")
	return cmd
}

// An inquiry is what a check was asked for.
type inquiry struct {
	server string // its name; "" is all
	target netaddr.Addr
	asJSON bool
}

// check prints what it finds to stdout, and returns [cli.ErrTold] unless
// all is well.
func (q inquiry) check(cmd *cobra.Command, source string) error {
	cfg, warnings, err := loadConfig(cmd, source)
	if err != nil {
		return tellMistakes(cmd.OutOrStdout(), err, q.asJSON)
	}
	log := slog.New(logging.New(cmd.ErrOrStderr(), slog.LevelWarn, false))
	for _, w := range warnings {
		log.Warn(w)
	}
	names := client.ServerNames(cfg)
	if q.server != "" && !slices.Contains(names, q.server) {
		return cli.Usagef("--server: no server is called %s\nfix: write one of %s", cli.Show(q.server), strings.Join(names, ", "))
	}
	return q.walk(cmd, cfg, names)
}

// walk checks the servers one after another. Those of a list are told each
// under a heading as soon as its check has ended.
func (q inquiry) walk(cmd *cobra.Command, cfg *config.Client, names []string) error {
	out, well := cmd.OutOrStdout(), true
	var reports []*diagnose.Report
	for i, name := range names {
		if q.server != "" && name != q.server {
			continue
		}
		report, err := client.CheckServer(cmd.Context(), cfg, i, client.Options{}, q.target)
		if err != nil {
			return tellMistakes(out, placed(cfg, err), q.asJSON)
		}
		reports, well = append(reports, report), well && report.OK()
		if q.asJSON {
			continue
		}
		if err := writeServer(out, report, heading(len(reports), i, names)); err != nil {
			return err
		}
	}
	if q.asJSON {
		if err := writeReports(out, reports); err != nil {
			return err
		}
	}
	if !well {
		return cli.ErrReported
	}
	return nil
}

// heading stands above the told-th report, which is of the i-th server, unless
// that is the only one there is.
func heading(told, i int, names []string) string {
	if len(names) == 1 {
		return ""
	}
	text := fmt.Sprintf("server %d of %d: %s\n", i+1, len(names), names[i])
	if told > 1 {
		return "\n" + text
	}
	return text
}

func writeServer(w io.Writer, r *diagnose.Report, heading string) error {
	if _, err := io.WriteString(w, heading); err != nil {
		return err
	}
	return r.WriteText(w)
}

func writeReports(w io.Writer, reports []*diagnose.Report) error {
	if len(reports) == 1 {
		return reports[0].WriteJSON(w)
	}
	return diagnose.WriteReports(w, reports)
}

// tellMistakes tells why there is no configuration to check.
func tellMistakes(w io.Writer, err error, asJSON bool) error {
	if err := diagnose.WriteMistakes(w, diagnose.Steps(), mistakes(err), asJSON); err != nil {
		return err
	}
	return &cli.UsageError{Err: cli.ErrReported}
}
