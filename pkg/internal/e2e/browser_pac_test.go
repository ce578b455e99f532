package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// pacSite is the name of the site that a browser with a PAC file opens.
const pacSite = "site.example"

// TestBrowserByPAC has a browser take the proxy from the status page's
// /proxy.pac: it loads a whole page through the client, goes to loopback by
// itself, and goes nowhere when the proxy is gone, though the site's name would
// lead there.
func TestBrowserByPAC(t *testing.T) {
	path := need(t, "chromium")
	origin := servePage(t)
	site := at(t, origin.addr, pacSite)
	far := inProcessServer(t, serverConfig(), inProcess{Dialer: onlyTo(site, origin.addr)})
	cfg := clientConfig(remoteAt(t, far.addr))
	cfg.Status.Enabled, cfg.Status.Listen = true, "127.0.0.1:0"
	near := ourClient(t, cfg)
	base, _, _ := strings.Cut(pageAddress(t, near.log), "?")

	tab, stop := openBrowser(t, path, browserWay{
		chromedp.Flag("proxy-pac-url", base+"proxy.pac"),
		chromedp.Flag("host-resolver-rules", "MAP "+pacSite+" 127.0.0.1 , "+knownNames),
	})
	defer stop()
	checkReport(t, loadPage(t, tab, "http://"+site+"/"), origin)
	near.log.waitFor(t, "to="+site)

	if err := chromedp.Do(tab, chromedp.Navigate(base+"healthz")); err != nil {
		t.Errorf("what is near cannot be reached: %v", err)
	}
	near.proc.kill()
	before := origin.served()
	if err := chromedp.Do(tab, chromedp.Navigate("http://"+site+"/again")); err == nil || !strings.Contains(err.Error(), "ERR_PROXY_CONNECTION_FAILED") {
		t.Errorf("without the proxy: %v", err)
	}
	if got := origin.served() - before; got != 0 {
		t.Errorf("%d requests went past the proxy", got)
	}
	if strings.Contains(near.log.String(), "to=127.0.0.1") {
		t.Error("what is near went through the proxy")
	}
}

// onlyTo is a way out that leads to one destination, which is at addr, so that
// nothing a browser does of its own accord leaves this machine.
func onlyTo(destination, addr string) transport.StreamDialer {
	return transport.DialerFunc(func(ctx context.Context, dst netaddr.Addr, first []byte) (transport.StreamConn, error) {
		if dst.String() != destination {
			return nil, fmt.Errorf("%s is out of bounds", dst)
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		if _, err := c.Write(first); err != nil {
			_ = c.Close()
			return nil, err
		}
		return c.(*net.TCPConn), nil
	})
}
