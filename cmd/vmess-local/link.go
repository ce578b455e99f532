package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vmess-local/pkg/config"
	"vmess-local/pkg/program"
	"vmess-local/pkg/sharelink"
)

func newLinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Turn share links into configurations and back",
		Example: `  vmess-local link import 'vmess://…' > config.json
  vmess-local link export -c config.json --qr`,
	}
	cmd.AddCommand(newLinkImportCommand(), newLinkExportCommand())
	return cmd
}

func newLinkImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import LINK|-",
		Short: "Print the configuration that a share link stands for",
		Long: `Import prints the configuration that a vmess:// share link stands for, in the
form of v2rayN or of the URL proposal; - reads the link from standard input.`,
		Example: `  (umask 077; vmess-local link import 'vmess://…' > config.json)
  xclip -o | vmess-local link import -`,
		Args: program.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return program.Usagef("which link?\nfix: %s", cmd.UseLine())
			}
			if args[0] != "-" && !isLink(args[0]) {
				return program.Usagef("%s is not a vmess:// link\nfix: take a link of a server that speaks VMess", program.Show(args[0]))
			}
			cfg, warnings, err := loadConfig(args[0], cmd.InOrStdin())
			if err != nil {
				return &program.UsageError{Err: err}
			}
			for _, w := range warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
			}
			_, err = cmd.OutOrStdout().Write(config.MarshalClient(cfg))
			return err
		},
	}
}

func newLinkExportCommand() *cobra.Command {
	var (
		file, format string
		qr           bool
	)
	cmd := &cobra.Command{
		Use:   "export [-c FILE]",
		Short: "Print the share link of a configuration's server",
		Long: `Export prints the share link of a configuration's server, for a phone or another
computer. Whoever has the link can use the server: it holds the id.`,
		Example: `  vmess-local link export -c config.json
  vmess-local link export --format url
  vmess-local link export --qr`,
		Args: program.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			form, err := sharelink.ParseForm(format)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			cfg, _, err := loadConfig(file, cmd.InOrStdin())
			if err != nil {
				return &program.UsageError{Err: err}
			}
			link, err := sharelink.Format(&cfg.Server, form)
			if err != nil {
				return &program.UsageError{Err: err}
			}
			for _, key := range sharelink.Lost(&cfg.Server, form) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: the link cannot carry %q\n", key)
			}
			fmt.Fprintln(cmd.OutOrStdout(), link)
			if !qr {
				return nil
			}
			code, err := sharelink.QR(link)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), code)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, or - for standard input")
	cmd.Flags().StringVar(&format, "format", "v2rayn", "link's `FORM`: v2rayn, which all clients read, or url")
	cmd.Flags().BoolVar(&qr, "qr", false, "draw the link as a QR code, too")
	return cmd
}
