// Command vmess-server is the far end of vmess-local: a VMess over WebSocket
// server for those who run their own.
package main

import (
	"io"
	"os"

	"vmess-local/pkg/cli"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := cli.NewRoot("vmess-server",
		"A VMess over WebSocket server",
		`vmess-server serves VMess in WebSocket to vmess-local, V2Ray, Xray, sing-box and
mihomo. It accepts VMessAEAD; legacy MD5 clients only where it is told to.

Exit codes: 0 fine, 1 it failed while running, 2 usage or configuration error.`,
		`  vmess-server init --host vps.example.com    write server.json, and what to
                                              give to the client
  vmess-server check -c server.json           what would go wrong
  vmess-server run -c server.json`,
		newRunCommand(),
		cli.NewReloadCommand("vmess-server", "Only \"users\" and \"log\" can be changed so; all else needs a restart. A log file\nis opened anew."),
		newInitCommand(), newCheckCommand())
	return cli.Main(root, args, stdin, stdout, stderr)
}
