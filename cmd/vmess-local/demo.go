package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/client"
	"vmess-local/pkg/demo"
)

func newDemoCommand() *cobra.Command {
	var (
		listen string
		once   bool
		log    cli.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "demo [--listen ADDR] [--once]",
		Short: "Try it on this machine; no server needed",
		Long: `Demo starts a server on a free loopback port and the client in front of it,
fetches one page through the whole way, says what happened step by step, and
stays usable as a proxy until Ctrl-C. Nothing leaves this machine unless you use
the proxy for more.`,
		Example: `  vmess-local demo
  vmess-local demo --once && echo it works`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := log.Check(); err != nil {
				return err
			}
			logger, err := log.New(cmd.ErrOrStderr(), "warn", "text", "")
			if err != nil {
				return err
			}
			err = demo.Run(cmd.Context(), demo.Options{
				Listen: listen, AnyPort: !cmd.Flags().Changed("listen"), Once: once,
				Out: cmd.OutOrStdout(), Log: logger.Logger,
			})
			var port *client.ListenError
			switch {
			case errors.As(err, &port): // here a flag says where to listen
				port.Verdict.Fix = strings.ReplaceAll(port.Verdict.Fix, `"listen"`, "--listen")
				return cli.NewFindings(err, 0, port.Verdict)
			case errors.Is(err, demo.ErrListen):
				return cli.Usagef("--listen: saw %s\nfix: write a loopback address like 127.0.0.1:1080 (a port from 0 to 65535), because the demo asks for no password", cli.Show(listen))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:1080", "local proxy's loopback `ADDR`; the default gives way to a free port when it is taken")
	cmd.Flags().BoolVar(&once, "once", false, "exit after the fetch: 0 when it worked, 1 when not")
	log.Add(cmd)
	return cmd
}
