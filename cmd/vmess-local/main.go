// Command vmess-local is the desktop client: a local SOCKS5 and HTTP proxy
// whose connections travel as VMess in WebSocket to a server.
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
		Use:   "vmess-local",
		Short: "A local SOCKS5 and HTTP proxy that travels as VMess in WebSocket",
		Long: `vmess-local opens a local port for browsers and other programs, speaking SOCKS5,
SOCKS4a and HTTP proxy, and carries every connection as VMess in a WebSocket
to a V2Ray, Xray, sing-box, mihomo or vmess-server.

Start with
  vmess-local demo                     to see it work without a server, or
  vmess-local run 'vmess://…'          with the share link of yours.`,
	}
	root.AddCommand(newRunCommand(), newDemoCommand(), program.NewVersionCommand("vmess-local"))
	return root
}
