package client

import (
	"net"
	"runtime"

	"vmess-local/pkg/host/listen"
)

// SetupHints are what people enter to use the proxy. The password is never part of
// them.
type SetupHints struct {
	Proxy    string   // the address to enter on this computer
	Firefox  string   // for Firefox's manual proxy settings
	Chromium string   // a command that starts Chromium with the proxy
	Shell    string   // a command that makes a shell's programs use it
	Others   []string // the addresses to enter on other devices; none on loopback
}

// hintsFor returns those of the proxy that listens on addr. Where it asks for a
// password, browsers get it as HTTP proxy: with SOCKS they give none.
func hintsFor(addr string, auth bool) SetupHints {
	others := listen.Elsewhere(addr)
	addr = listen.Here(addr)
	if !auth {
		return SetupHints{
			Proxy: addr, Others: others,
			Firefox:  "SOCKS v5 host " + hostPortWords(addr) + ", and \"Proxy DNS\"",
			Chromium: "chromium --proxy-server=socks5://" + addr,
			Shell:    exportProxy(runtime.GOOS, "socks5h://"+addr),
		}
	}
	const asks = " (it asks for the password; for SOCKS it has none)"
	return SetupHints{
		Proxy: addr, Others: others,
		Firefox:  "HTTP Proxy " + hostPortWords(addr) + ", and \"Also use this proxy for HTTPS\"" + asks,
		Chromium: "chromium --proxy-server=http://" + addr + asks,
		Shell:    exportProxy(runtime.GOOS, "socks5h://USER:PASSWORD@"+addr),
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
