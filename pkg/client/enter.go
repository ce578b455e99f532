package client

import (
	"net"
	"runtime"
)

// entries are what people enter to use the proxy: in Firefox, for Chromium, in
// a shell.
type entries struct{ firefox, chromium, shell string }

// entriesOf returns those of the proxy at addr. Where it asks for a password,
// browsers get it as HTTP proxy: with SOCKS they give none. The password is
// never part of them.
func entriesOf(addr string, auth bool) entries {
	if !auth {
		return entries{
			firefox:  "SOCKS v5 host " + spaced(addr) + ", and \"Proxy DNS\"",
			chromium: "chromium --proxy-server=socks5://" + addr,
			shell:    exportProxy(runtime.GOOS, "socks5h://"+addr),
		}
	}
	const asks = " (it asks for the password; for SOCKS it has none)"
	return entries{
		firefox:  "HTTP Proxy " + spaced(addr) + ", and \"Also use this proxy for HTTPS\"" + asks,
		chromium: "chromium --proxy-server=http://" + addr + asks,
		shell:    exportProxy(runtime.GOOS, "socks5h://USER:PASSWORD@"+addr),
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

// spaced is an address as browsers ask for it.
func spaced(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host + " port " + port
}
