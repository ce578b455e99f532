// Command vmess-server is the far end of vmess-local: a VMess over WebSocket
// server for those who run their own.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"vmess-local/pkg/program"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return program.Main(stderr, func(ctx context.Context) error {
		return program.Execute(ctx, newRoot(), args, stdin, stdout, stderr)
	})
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "vmess-server",
		Short: "A VMess over WebSocket server",
		Long: `vmess-server serves VMess in WebSocket to vmess-local, V2Ray, Xray, sing-box and
mihomo. It accepts VMessAEAD; legacy MD5 clients only where it is told to.

Start with
  vmess-server init --host vps.example.com     writes a configuration and prints the client's
  vmess-server run -c server.json`,
	}
	root.AddCommand(newRunCommand(), newInitCommand(), program.NewVersionCommand("vmess-server"))
	return root
}
