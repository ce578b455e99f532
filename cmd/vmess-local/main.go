// Command vmess-local is the desktop client: a local SOCKS5 and HTTP proxy
// whose connections travel as VMess in WebSocket to a server.
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
	root := cli.NewRoot("vmess-local",
		"A local SOCKS5 and HTTP proxy that travels as VMess in WebSocket",
		`vmess-local opens a local port for browsers and other programs, speaking SOCKS5,
SOCKS4a and HTTP proxy, and carries every connection as VMess in a WebSocket
to a V2Ray, Xray, sing-box, mihomo or vmess-server.

Exit codes: 0 fine, 1 it failed while running, 2 usage or configuration error.`,
		`  vmess-local demo                  see it work, without any server
  vmess-local run 'vmess://…'       with the share link of your server
  vmess-local run -c config.json    with a configuration`,
		newRunCommand(), cli.NewReloadCommand("vmess-local",
			"Connections that are open go on as they were. A log file is opened anew."), newDemoCommand(), newLinkCommand(), newCheckCommand())
	return cli.Main(root, args, stdin, stdout, stderr)
}
