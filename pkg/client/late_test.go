package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"vmess-local/pkg/carrier/connpool"
	"vmess-local/pkg/carrier/wsconn"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/tcpconn"
)

// A slowPath is a server behind a network where time passes while something is
// waited for: by the clock of both ends, at once for the test.
type slowPath struct {
	account *vmess.Account
	clock   atomic.Int64 // nanoseconds that have passed

	connecting, upgrading time.Duration
	dialer                wsconn.Dialer
	ended                 chan error // how requests did
}

func newSlowPath(t *testing.T) *slowPath {
	t.Helper()
	p := &slowPath{ended: make(chan error, 8)}
	start := time.Now()
	now := func() time.Time { return start.Add(time.Duration(p.clock.Load())) }
	id, _ := vmess.ParseID(testID)
	method, _ := vmess.ParseMethod("aes-128-gcm", true, false)
	p.account = vmess.NewAccount(vmess.AccountConfig{ID: id, Method: method, Now: now})
	server, err := vmess.NewServer(vmess.ServerConfig{Users: []vmess.User{{ID: id}}, AEADForced: true, Now: now, Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ws := &wsconn.Server{Path: "/ray", Serve: func(ctx context.Context, c *wsconn.Conn, _ *http.Request) {
		in, err := server.Accept(ctx, c)
		p.ended <- err
		if err != nil {
			return
		}
		if far, err := in.Proceed(netaddr.Addr{}.AddrPort()); err == nil {
			_, _ = io.Copy(io.Discard, far)
			_ = far.Close()
		}
	}}
	l := httptest.NewServer(ws)
	t.Cleanup(l.Close)
	p.dialer = wsconn.Dialer{Host: "server.example", Path: "/ray", EarlyDataHeader: "Sec-WebSocket-Protocol", Endpoint: transport.EndpointFunc(func(context.Context, []byte) (transport.StreamConn, error) {
		c, err := net.Dial("tcp", l.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		p.clock.Add(int64(p.connecting))
		return &slowUpgrade{StreamConn: tcpconn.New(c.(*net.TCPConn)), path: p}, nil
	})}
	return p
}

// A slowUpgrade is a connection whose first answer takes a while.
type slowUpgrade struct {
	transport.StreamConn
	path *slowPath
	done atomic.Bool
}

func (s *slowUpgrade) Read(b []byte) (int, error) {
	n, err := s.StreamConn.Read(b)
	if !s.done.Swap(true) {
		s.path.clock.Add(int64(s.path.upgrading))
	}
	return n, err
}

// TestRequestSaysWhenItLeaves: a request says what time it is when it leaves,
// however long ago it was made: the server takes it for two minutes.
func TestRequestSaysWhenItLeaves(t *testing.T) {
	const long = 3 * time.Minute
	dst := somewhere
	dial := func(t *testing.T, p *slowPath, e transport.StreamEndpoint, first string) *vmess.Conn {
		t.Helper()
		c, err := (&vmess.Dialer{Client: p.account, Endpoint: e}).DialStream(t.Context(), dst, []byte(first))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*vmess.Conn)
	}
	for name, send := range map[string]func(t *testing.T, p *slowPath){
		"the server is minutes away": func(t *testing.T, p *slowPath) {
			p.connecting = long
			dial(t, p, &p.dialer, "hello")
		},
		"with early data": func(t *testing.T, p *slowPath) {
			p.connecting, p.dialer.EarlyData = long, 2048
			dial(t, p, &p.dialer, "hello")
		},
		"the upgrade takes minutes": func(t *testing.T, p *slowPath) {
			p.upgrading = long
			dial(t, p, &p.dialer, "hello")
		},
		"the application is silent": func(t *testing.T, p *slowPath) {
			c := dial(t, p, &p.dialer, "")
			p.clock.Add(int64(long))
			_, _ = io.WriteString(c, "hello")
		},
		"the application ends": func(t *testing.T, p *slowPath) {
			c := dial(t, p, &p.dialer, "")
			p.clock.Add(int64(long))
			_ = c.CloseWrite()
		},
		"the clock is set right": func(t *testing.T, p *slowPath) {
			p.account.SetOffset(-long)
			c := dial(t, p, &p.dialer, "")
			p.account.SetOffset(0)
			_, _ = io.WriteString(c, "hello")
			if _, offset := c.Signed(); offset != 0 {
				t.Errorf("signed with the offset %v", offset)
			}
		},
		"a pool is waited for": func(t *testing.T, p *slowPath) {
			pool := connpool.NewPool(&p.dialer, connpool.Options{Max: 1, Idle: time.Hour})
			t.Cleanup(func() { _ = pool.Close() })
			pool.Prefetch()
			for !pool.Ready() {
				time.Sleep(time.Millisecond)
			}
			dial(t, p, transport.EndpointFunc(func(ctx context.Context, first []byte) (transport.StreamConn, error) {
				p.clock.Add(int64(long))
				return pool.ConnectStream(ctx, first)
			}), "hello")
		},
		"a Mux tunnel": func(t *testing.T, p *slowPath) {
			p.upgrading = long
			c, err := (&vmess.Dialer{Client: p.account, Endpoint: &p.dialer}).DialMux(t.Context(), []byte("frames"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
		},
		"datagrams": func(t *testing.T, p *slowPath) {
			c, err := (&vmess.Dialer{Client: p.account, Endpoint: &p.dialer}).DialPacket(t.Context(), dst)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			p.clock.Add(int64(long))
			if err := c.WritePacket([]byte("hello"), dst); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newSlowPath(t)
			send(t, p)
			if err := <-p.ended; err != nil {
				t.Errorf("the server: %v", err)
			}
		})
	}
}
