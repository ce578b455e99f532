package main

import (
	"log/slog"
	"strings"

	"vmess-local/pkg/cli/logging"
	"vmess-local/pkg/client"
)

// logHints returns what logs what to enter to use the proxy.
func logHints(log *slog.Logger) func(client.SetupHints) {
	return func(h client.SetupHints) {
		hint := func(program, format string, args ...any) {
			log.Info("setup hint", logging.Text(format, args...), "program", program, "proxy", h.Proxy)
		}
		hint("firefox", "Firefox: Settings, Network Settings, Manual: %s", h.Firefox)
		hint("chromium", "Chromium: %s", h.Chromium)
		hint("shell", "shell: %s", h.Shell)
		if len(h.Others) > 0 {
			log.Info("setup hint", logging.Text("other devices: SOCKS5 or HTTP proxy %s", strings.Join(h.Others, " or ")), "program", "other devices", "proxies", h.Others)
		}
	}
}
