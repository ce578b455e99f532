package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
	"vmess-local/pkg/serverinit"
)

func newInitCommand() *cobra.Command {
	var (
		plan serverinit.Options
		out  string
	)
	cmd := &cobra.Command{
		Use:   "init [--host NAME] [--port N] [--cert PEM --key PEM] [--out DIR]",
		Short: "Write a fresh configuration and print the client's",
		Long: `Init writes server.json with a new id and a random path into a directory,
readable by you only, and prints what the client needs: its share link, the same
as a QR code, and its configuration. An existing file is never overwritten.`,
		Example: `  vmess-server init --host vps.example.com
  vmess-server init --host vps.example.com --cert chain.pem --key key.pem`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkPlan(plan); err != nil {
				return err
			}
			srv, cl, err := serverinit.New(plan)
			var host *serverinit.HostError
			if errors.As(err, &host) {
				return cli.Usagef("--%w\nfix: give %s", host, host.Want)
			}
			if err != nil {
				return err
			}
			link, err := sharelink.Format(&cl.Server, sharelink.FormV2rayN)
			if err != nil {
				return err
			}
			code, err := sharelink.QR(link, cli.Coloured(cmd.OutOrStdout()))
			if err != nil {
				return err
			}
			file := filepath.Join(out, "server.json")
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			if err := writeNew(file, config.MarshalServer(srv)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), saidText, file, file)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s%s", link, code, config.MarshalClient(cl))
			return err
		},
	}
	cmd.Flags().StringVar(&plan.Host, "host", "localhost", "server's `NAME` or address as clients reach it; a loopback one serves this machine only")
	cmd.Flags().Uint16Var(&plan.Port, "port", 0, "server's port `N`; 0 is 443 with a certificate, else 8080")
	cmd.Flags().StringVar(&plan.CertFile, "cert", "", "certificate chain, a `PEM` file, to speak TLS")
	cmd.Flags().StringVar(&plan.KeyFile, "key", "", "certificate's key, a `PEM` file")
	cmd.Flags().StringVar(&out, "out", ".", "`DIR` that server.json is written to")
	return cmd
}

// checkPlan refuses a certificate that the server could not use.
func checkPlan(plan serverinit.Options) error {
	switch {
	case plan.CertFile == "" && plan.KeyFile == "":
		return nil
	case plan.KeyFile == "":
		return cli.Usagef("--cert without --key: a certificate and its key belong together\nfix: add --key PEM, or leave both out for plain WebSocket")
	case plan.CertFile == "":
		return cli.Usagef("--key without --cert: a certificate and its key belong together\nfix: add --cert PEM, or leave both out for plain WebSocket")
	}
	var wrong *serverinit.CertificateError
	if !errors.As(serverinit.CheckCertificate(plan.CertFile, plan.KeyFile), &wrong) {
		return nil
	}
	flag := "--cert"
	if wrong.Key {
		flag = "--key"
	}
	return cli.Usagef("%s: %w\nfix: name %s", flag, wrong, wrong.Want)
}

const saidText = `wrote %s; start the server with: vmess-server run -c %s
For the client, here are the link, its QR code and its configuration. Each holds
the id, which is a password.
`

// writeNew writes a file that must not exist yet, for the user's eyes only.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already\nfix: move it away, or choose another directory with --out", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
