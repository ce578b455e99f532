package netdial_test

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/txthinking/socks5"

	"vmess-local/pkg/carrier/netdial"
	"vmess-local/pkg/transport/netaddr"
)

// A socksProxy is a SOCKS5 server that echoes in place of connecting.
type socksProxy struct {
	method byte // the one it insists on
	status byte // of the password
	reply  byte
	asked  chan string
}

func (p socksProxy) handle(t *testing.T) func(net.Conn) {
	return func(c net.Conn) {
		hello, err := socks5.NewNegotiationRequestFrom(c)
		if err != nil {
			t.Errorf("greeting: %v", err)
			return
		}
		method := p.method
		if !slices.Contains(hello.Methods, method) && method == socks5.MethodNone {
			method = socks5.MethodUnsupportAll
		}
		_, _ = socks5.NewNegotiationReply(method).WriteTo(c)
		if method == socks5.MethodUsernamePassword && !p.login(c) {
			return
		}
		request, err := socks5.NewRequestFrom(c)
		if err != nil {
			return // the client left
		}
		p.asked <- request.Address()
		_, _ = socks5.NewReply(p.reply, socks5.ATYPIPv4, []byte{0, 0, 0, 0}, []byte{0, 0}).WriteTo(c)
		if p.reply == socks5.RepSuccess {
			echo(c)
		}
	}
}

func (p socksProxy) login(c net.Conn) bool {
	login, err := socks5.NewUserPassNegotiationRequestFrom(c)
	if err != nil { // the client has none, and should not wait for more
		drain(c)
		return false
	}
	status := p.status
	if string(login.Uname) != "joe" || string(login.Passwd) != secret {
		status = socks5.UserPassStatusFailure
	}
	_, _ = socks5.NewUserPassNegotiationReply(status).WriteTo(c)
	return status == socks5.UserPassStatusSuccess
}

func TestSOCKS(t *testing.T) {
	for _, c := range []struct {
		name   string
		proxy  socksProxy
		user   *url.Userinfo
		server string
	}{
		{"without password", socksProxy{}, nil, "server.example:443"},
		{"password not wanted", socksProxy{}, url.UserPassword("joe", secret), "192.0.2.1:443"},
		{"password", socksProxy{method: socks5.MethodUsernamePassword}, url.UserPassword("joe", secret), "[2001:db8::1]:443"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.proxy.asked = make(chan string, 1)
			proxy := serve(t, c.proxy.handle(t))
			d := &netdial.Dialer{Server: addr(t, c.server), Upstream: upstream("socks5", c.user, proxy), Resolver: refuseNames(t)}
			conn, err := d.ConnectStream(t.Context(), []byte("first "))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			roundTrip(t, conn, "first ", "and more")
			if asked := <-c.proxy.asked; asked != c.server {
				t.Errorf("the proxy was asked for %s", asked)
			}
		})
	}
}

func TestSOCKSRefused(t *testing.T) {
	joe := url.UserPassword("joe", secret)
	for _, c := range []struct {
		name  string
		proxy socksProxy
		user  *url.Userinfo
		want  netdial.UpstreamError
	}{
		{"refused", socksProxy{reply: socks5.RepConnectionRefused}, nil, netdial.UpstreamError{Status: 5, Text: "connection refused"}},
		{"rules", socksProxy{reply: 2}, joe, netdial.UpstreamError{Status: 2, Text: "connection not allowed by ruleset"}},
		{"refused after the password", socksProxy{method: 2, reply: 4}, joe, netdial.UpstreamError{Status: 4, Text: "host unreachable"}},
		{"unknown reply", socksProxy{reply: 77}, nil, netdial.UpstreamError{Status: 77, Text: "unknown reply 77"}},
		{"wrong password", socksProxy{method: 2, status: 1}, joe, netdial.UpstreamError{Auth: true, Text: "that user name or password are wrong"}},
		{"password wanted", socksProxy{method: 2}, nil, netdial.UpstreamError{Auth: true, Text: "that it wants a user name and password"}},
		{"no method", socksProxy{method: 0xff}, joe, netdial.UpstreamError{Auth: true, Text: "that it accepts none of the authentication methods"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.proxy.asked = make(chan string, 1)
			proxy := serve(t, c.proxy.handle(t))
			wantSOCKSError(t, proxy, c.user, c.want)
		})
	}
	t.Run("no SOCKS", func(t *testing.T) {
		proxy := serve(t, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); drain(c) })
		wantSOCKSError(t, proxy, nil, netdial.UpstreamError{Text: "without SOCKS5: its first byte is 0x48"})
	})
	t.Run("user name too long", func(t *testing.T) {
		proxy := serve(t, socksProxy{method: 2}.handle(t))
		d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("socks5", url.UserPassword(strings.Repeat("u", 256), secret), proxy)}
		if e := failed(t, t.Context(), d, netdial.StepUpstream); strings.Contains(e.Error(), "hunter2") {
			t.Errorf("the password shows: %v", e)
		}
	})
}

func wantSOCKSError(t *testing.T, proxy netaddr.Addr, user *url.Userinfo, want netdial.UpstreamError) {
	t.Helper()
	d := &netdial.Dialer{Server: addr(t, "server.example:443"), Upstream: upstream("socks5", user, proxy)}
	e := failed(t, t.Context(), d, netdial.StepUpstream)
	var got *netdial.UpstreamError
	if !errors.As(e, &got) || got.Status != want.Status || got.Text != want.Text || got.Auth != want.Auth || e.Timeout() {
		t.Errorf("got %v, want %+v", e, want)
	}
	if strings.Contains(e.Error(), "hunter2") {
		t.Errorf("the password shows: %v", e)
	}
}
