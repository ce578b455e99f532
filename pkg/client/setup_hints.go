package client

import (
	"log/slog"
	"net"
	"runtime"
	"strings"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/host/listen"
)

// setupHints are what people enter to use the proxy: in Firefox, for Chromium, in
// a shell.
type setupHints struct{ firefox, chromium, shell string }

// hintsFor returns those of the proxy that listens on addr. Where it asks for a password,
// browsers get it as HTTP proxy: with SOCKS they give none. The password is
// never part of them.
func hintsFor(addr string, auth bool) setupHints {
	addr = listen.Here(addr)
	if !auth {
		return setupHints{
			firefox:  "SOCKS v5 host " + hostPortWords(addr) + ", and \"Proxy DNS\"",
			chromium: "chromium --proxy-server=socks5://" + addr,
			shell:    exportProxy(runtime.GOOS, "socks5h://"+addr),
		}
	}
	const asks = " (it asks for the password; for SOCKS it has none)"
	return setupHints{
		firefox:  "HTTP Proxy " + hostPortWords(addr) + ", and \"Also use this proxy for HTTPS\"" + asks,
		chromium: "chromium --proxy-server=http://" + addr + asks,
		shell:    exportProxy(runtime.GOOS, "socks5h://USER:PASSWORD@"+addr),
	}
}

// logEntries logs what to enter to use the proxy that listens on addr.
func logEntries(log *slog.Logger, addr string, auth bool) {
	enter, here := hintsFor(addr, auth), listen.Here(addr)
	log.Info("firefox", logging.Text("Firefox: Settings, Network Settings, Manual: %s", enter.firefox), "proxy", here)
	log.Info("chromium", logging.Text("Chromium: %s", enter.chromium), "proxy", here)
	log.Info("shell", logging.Text("shell: %s", enter.shell), "proxy", here)
	if others := listen.Elsewhere(addr); len(others) > 0 {
		log.Info("other devices", logging.Text("other devices: SOCKS5 or HTTP proxy %s", strings.Join(others, " or ")), "proxies", others)
	}
}

// exportProxy is the command that makes the programs of a shell use the proxy
// at url: PowerShell's on Windows, else a POSIX shell's.
func exportProxy(system, url string) string {
	if system == "windows" {
		return `$env:ALL_PROXY = "` + url + `"`
	}
	return "export ALL_PROXY=" + url
}

// hostPortWords is an address as browsers ask for it.
func hostPortWords(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host + " port " + port
}
