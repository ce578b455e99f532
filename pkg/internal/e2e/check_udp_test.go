package e2e

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/diagnose"
	"vmess-local/pkg/transport/netaddr"
)

// How a stunServer answers by TCP.
const (
	tcpAnswers = iota
	tcpRefuses
	tcpIsSilent
)

// stunServer answers binding requests by UDP, if it is to, and by TCP. Its
// port is STUN's own, by which a check knows what to ask, at an address that
// nothing else uses.
func stunServer(t *testing.T, ip string, byUDP bool, byTCP int) netaddr.Addr {
	t.Helper()
	addr := net.JoinHostPort(ip, "3478")
	answer := func(p []byte) []byte {
		if len(p) != 20 || p[0] != 0 || p[1] != 1 || p[4] != 0x21 || p[7] != 0x42 {
			t.Errorf("% x is no binding request", p)
			return nil
		}
		return append([]byte{1, 1}, p[2:]...)
	}
	socket, err := net.ListenPacket("udp4", addr)
	if err != nil {
		leaveOut(t, "this computer has no %s: %v", addr, err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = socket.Close()
		<-done
	})
	go func() {
		defer close(done)
		p := make([]byte, 100)
		for {
			n, from, err := socket.ReadFrom(p)
			if err != nil {
				return
			}
			if byUDP {
				_, _ = socket.WriteTo(answer(p[:n]), from)
			}
		}
	}()
	if byTCP != tcpRefuses {
		serveOriginOn(t, addr, func(c *net.TCPConn) {
			p := make([]byte, 20)
			if n, err := c.Read(p); err == nil && byTCP == tcpAnswers {
				_, _ = c.Write(answer(p[:n]))
			}
			_, _ = io.Copy(io.Discard, c)
		})
	}
	dst, err := netaddr.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// TestCheckDatagrams: a target that answers datagrams shows which form the
// server understands; without one nothing is claimed.
func TestCheckDatagrams(t *testing.T) {
	t.Parallel()
	answers, mute := stunServer(t, "127.0.34.78", true, tcpAnswers), stunServer(t, "127.0.34.79", false, tcpAnswers)
	only, onlySilent := stunServer(t, "127.0.34.80", true, tcpRefuses), stunServer(t, "127.0.34.81", true, tcpIsSilent)
	gone := stunServer(t, "127.0.34.82", false, tcpRefuses)
	ours, v2ray := inProcessServer(t, serverConfig(), inProcess{}).addr, labV2ray(t).addr
	for _, tt := range []struct {
		name, server, mode string
		target             netaddr.Addr
		status             diagnose.Status
		says               string
		cause              diagnose.Cause
	}{
		{"our server", ours, "auto", answers, diagnose.Pass, "127.0.34.78:3478 answers by XUDP: full cone", ""},
		{"our server, packetaddr", ours, "packetaddr", answers, diagnose.Pass, "answers by packetaddr: full cone", ""},
		{"our server, plain", ours, "plain", answers, diagnose.Pass, "answers by plain VMess: each destination sees a port of its own", ""},
		{"V2Ray", v2ray, "auto", answers, diagnose.Pass, "answers by plain VMess: each destination sees a port of its own", ""},
		{"V2Ray, XUDP", v2ray, "xudp", answers, diagnose.Fail, "the server does not understand XUDP", ""},
		{"a mute target", ours, "auto", mute, diagnose.Fail, "no datagram came back from 127.0.34.79:3478", diagnose.DestinationNoAnswer},
		{"UDP only", ours, "auto", only, diagnose.Pass, "127.0.34.80:3478 answers by XUDP: full cone", ""},
		{"UDP only, V2Ray", v2ray, "auto", only, diagnose.Pass, "answers by plain VMess", ""},
		{"UDP only, TCP silent", ours, "auto", onlySilent, diagnose.Pass, "127.0.34.81:3478 answers by XUDP: full cone", ""},
		{"nothing there", ours, "auto", gone, diagnose.Fail, "no datagram came back from 127.0.34.82:3478", diagnose.DestinationNoAnswer},
		{"UDP off, nothing by TCP", ours, "off", only, diagnose.Skip, `"udp.mode" is "off"`, diagnose.DestinationRefused},
		{"no target, our server", ours, "auto", netaddr.Addr{}, diagnose.Skip, "not tried (--target HOST:53 or HOST:3478 does); by XUDP: full cone", ""},
		{"no target, V2Ray", v2ray, "auto", netaddr.Addr{}, diagnose.Skip, "by a form not known yet: found out with the first answers", ""},
		{"off", ours, "off", answers, diagnose.Skip, `"udp.mode" is "off"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := clientConfig(remoteAt(t, tt.server))
			cfg.UDP.Mode = tt.mode
			parsed, err := config.ParseClient("config.json", config.MarshalClient(cfg))
			if err != nil {
				t.Fatal(err)
			}
			r, err := client.Check(t.Context(), parsed, client.Options{LookupEnv: lookup(nil)}, tt.target)
			if err != nil {
				t.Fatal(err)
			}
			byTCP := diagnose.Pass // which is no failure where UDP is the question
			switch {
			case tt.mode == "off" && tt.target == only:
				byTCP = diagnose.Fail
			case !tt.target.IsValid(), tt.target == only, tt.target == onlySilent, tt.target == gone:
				byTCP = diagnose.Skip
			}
			for _, step := range r.Steps {
				switch {
				case step.Name == diagnose.StepUDP && (step.Status != tt.status || !strings.Contains(step.Detail, tt.says)):
					t.Errorf("UDP: %v, %q; want %v with %q", step.Status, step.Detail, tt.status, tt.says)
				case step.Name == diagnose.StepDestination && step.Status != byTCP:
					t.Errorf("the destination: %v, %q; want %v", step.Status, step.Detail, byTCP)
				case step.Name == diagnose.StepDestination && step.Took > 3*time.Second:
					t.Errorf("TCP was waited for for %v", step.Took)
				}
			}
			if r.Verdict.Cause != tt.cause || r.OK() != (tt.status != diagnose.Fail && tt.cause == "") {
				t.Errorf("the verdict is %q, and OK is %v", r.Verdict.Cause, r.OK())
			}
		})
	}
}
