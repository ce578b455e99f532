package serverinit

import (
	"testing"

	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
)

func idOf(t *testing.T, srv *config.Server) vmess.ID {
	t.Helper()
	id, err := vmess.ParseID(string(srv.Users[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		plan   Options
		listen string
		port   int
		tls    bool
		err    bool
	}{
		{plan: Options{Host: "vps.example.com"}, listen: ":8080", port: 8080},
		{plan: Options{Host: "vps.example.com", CertFile: "c.pem", KeyFile: "k.pem"}, listen: ":443", port: 443, tls: true},
		{plan: Options{Host: "localhost", Port: 99}, listen: "127.0.0.1:99", port: 99},
		{plan: Options{Host: "::1"}, listen: "[::1]:8080", port: 8080},
		{plan: Options{Host: "a b"}, err: true},
		{plan: Options{Host: ""}, err: true},
		{plan: Options{Host: "0.0.0.0"}, err: true},
		{plan: Options{Host: "::"}, err: true},
		{plan: Options{Host: "::ffff:0.0.0.0"}, err: true},
		{plan: Options{Host: "a", CertFile: "c.pem"}, err: true},
	} {
		srv, cl, err := New(c.plan)
		if (err != nil) != c.err {
			t.Errorf("%+v: %v", c.plan, err)
		}
		if err != nil {
			continue
		}
		if srv.Listen != c.listen || cl.Server.Port != c.port || cl.Server.TLS.Enabled != c.tls {
			t.Errorf("%+v: listen %s, port %d, TLS %v", c.plan, srv.Listen, cl.Server.Port, cl.Server.TLS.Enabled)
		}
		if srv.Users[0].ID != cl.Server.ID || srv.WS.Path != cl.Server.WS.Path {
			t.Errorf("%+v: the two do not match", c.plan)
		}
		if _, err := config.ParseServer("s", config.MarshalServer(srv)); err != nil {
			t.Errorf("%+v: the server's is refused: %v", c.plan, err)
		}
		if _, err := config.ParseClient("c", config.MarshalClient(cl)); err != nil {
			t.Errorf("%+v: the client's is refused: %v", c.plan, err)
		}
		for range 20 { // one in seven ids would be told
			if srv, _, _ := New(c.plan); vmess.MinDrain([]vmess.User{{ID: idOf(t, srv)}}) < vmess.SafeDrain {
				t.Errorf("%+v: an id whose count is too small", c.plan)
			}
		}
		other, _, _ := New(c.plan)
		if other.Users[0].ID == srv.Users[0].ID || other.WS.Path == srv.WS.Path {
			t.Errorf("%+v: not fresh the second time", c.plan)
		}
	}
}
