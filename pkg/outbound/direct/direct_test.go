package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPublic(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "192.0.1.1": true, "2002:808:808::1": true, "64:ff9b::8.8.8.8": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "255.255.255.255": false, "224.0.0.1": false, "198.18.0.1": false,
		"::": false, "::1": false, "fe80::1": false, "fc00::1": false, "ff02::1": false, "::ffff:127.0.0.1": false,
		"::127.0.0.1": false, "64:ff9b::10.0.0.1": false, "2002:7f00:1::": false, "fec0::1": false, "fe80::1%lo": false,
		"2001:0:4136:e378:8000:63bf:3fff:fdd2": false, "2001:1::1": true, "::ffff:0:8.8.8.8": false, "::ffff:0:127.0.0.1": false,
		"3fff::1": false, "3fff:fff::1": false, "3ffe::1": true,
		"168.63.129.16": false, "168.63.129.17": true, "::ffff:168.63.129.16": false, "64:ff9b::168.63.129.16": false, "2002:a83f:8110::1": false,
		"192.88.99.1": false, "192.88.98.1": true, "2001:2::1": false, "2001:2:1::1": true, "5f00::1": false, "5f01::1": true,
		"2001:10::1": false, "2001:1f:ffff::1": false, "2001:20::1": true, "100::1": false, "100:0:0:1::1": false,
	} {
		if got := public(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: public %v, want %v", ip, got, want)
		}
	}
}

// origin answers every connection with what it was sent first.
func origin(t *testing.T) netaddr.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	return netaddr.FromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
}

func TestDialAllowed(t *testing.T) {
	d := &Dialer{AllowPrivate: true}
	c, err := d.DialStream(t.Context(), origin(t), []byte("first "))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(c); string(p) != "first second" || err != nil {
		t.Fatalf("read %q, %v", p, err)
	}
}

func TestPrivateRefused(t *testing.T) {
	dst := origin(t)
	name, err := netaddr.FromHost("smuggler.test", dst.Port())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netaddr.Addr{dst, name} {
		d := &Dialer{Resolver: loopbackResolver(t)}
		c, err := d.DialStream(t.Context(), a, nil)
		if !errors.Is(err, transport.ErrNotAllowed) || transport.CodeOf(err) != transport.CodeNotAllowed {
			t.Errorf("%s: %v, %v", a, c, err)
		}
	}
}

func TestTimeout(t *testing.T) {
	name, _ := netaddr.FromHost("silent.test", 1)
	d := &Dialer{Timeout: 20 * time.Millisecond, Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}}
	if _, err := d.DialStream(t.Context(), name, nil); transport.CodeOf(err) != transport.CodeHostUnreachable {
		t.Fatalf("got %v", err)
	}
}
