package sharelink

import (
	"net/url"
	"strings"
	"testing"
)

// Links are read whether the slashes in them were escaped, too (JavaScript), or not
// (Python).
func TestPercentEncodedLink(t *testing.T) {
	const link = "vmess://5ec2e700-0000-4000-8000-000000000001@vps.example.com:443?type=ws&security=tls&path=%2Fway"
	all := url.QueryEscape(link)
	for _, text := range []string{all, strings.ReplaceAll(all, "%2F", "/")} {
		found, err := Read([]byte(text))
		if err != nil || len(found.Servers) != 1 || found.Servers[0].WS.Path != "/way" {
			t.Errorf("%s: %+v, %v", text, found, err)
		}
	}
}
