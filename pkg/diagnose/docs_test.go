package diagnose_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"vmess-local/pkg/diagnose"
)

const docsHead = "# Failures: what they mean and what to do\n\n" +
	"<!-- Written by: go test ./pkg/diagnose -run TestDocs -update -->\n\n" +
	"Every failure is reported in two lines: the cause's id with what happened and how certain that is, and what to do.\n\n" +
	"    error: vmess.aead-required: the server refuses MD5 authentication (it enforces VMessAEAD) [3 of 3 attempts; certain]\n" +
	"    fix: unset V2RAY_VMESS_AEAD_DISABLED\n\n" +
	"*certain*: the symptoms have only one explanation. *likely*: another cause would be rare. *possible*: several causes fit. " +
	"The message itself is more precise than this page: it names your server, path and key, and the key's position in your file. " +
	"`vmess-local check` tests the whole connection step by step and ends with the same two lines; `vmess-server check` does this on the server.\n"

func docs() string {
	titles := map[string]string{
		"config": "The configuration", "listen": "The local port", "dns": "The server's name", "tcp": "The connection to the server",
		"upstream": "The company proxy", "tls": "TLS", "ws": "WebSocket", "vmess": "The account", "tunnel": "Connections in use",
		"destination": "Beyond the server", "limit": "Limits", "local": "Local programs",
	}
	var b strings.Builder
	b.WriteString(docsHead)
	var group string
	for _, c := range diagnose.Causes() {
		kind, _, _ := strings.Cut(string(c.Cause), ".")
		if kind != group {
			group = kind
			fmt.Fprintf(&b, "\n## %s\n", titles[kind])
		}
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n\n- **Recognised by:** %s\n- **What to do:** %s\n", c.Cause, c.Means, c.Signs, c.Fix)
	}
	return b.String()
}

func TestDocs(t *testing.T) {
	golden(t, filepath.Join("..", "..", "docs", "failures.md"), docs())
}
