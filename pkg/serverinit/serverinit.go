// Package serverinit makes a fresh server's configuration, and the client's to
// match.
package serverinit

import (
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"strings"

	"vmess-local/pkg/config"
	"vmess-local/pkg/protocol/vmess"
	"vmess-local/pkg/transport/netaddr"
)

// A Options says what is known of the server.
type Options struct {
	// Host is the server's name or address as clients reach it. A loopback one
	// makes a server for this machine only.
	Host string
	// Port is the server's port; 0 means 443 with a certificate, else 8080.
	Port uint16
	// CertFile and KeyFile, both or none, make it speak TLS.
	CertFile, KeyFile string
}

// A HostError tells why a Plan's host cannot be that of a server.
type HostError struct {
	Err  error  // what is wrong with it
	Want string // what would be right
}

// Error implements error.
func (e *HostError) Error() string { return "host: " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *HostError) Unwrap() error { return e.Err }

// New returns the two configurations, with a new id and a random path.
func New(p Options) (*config.Server, *config.Client, error) {
	if (p.CertFile == "") != (p.KeyFile == "") {
		return nil, nil, fmt.Errorf("a certificate and its key belong together")
	}
	withTLS := p.CertFile != ""
	if p.Port == 0 {
		p.Port = 8080
		if withTLS {
			p.Port = 443
		}
	}
	host, err := netaddr.FromHost(p.Host, p.Port)
	if err != nil {
		return nil, nil, &HostError{Err: err, Want: "a name like vps.example.com, or an IP address, without port"}
	}
	if host.IP().Unmap().IsUnspecified() {
		return nil, nil, &HostError{
			Err:  fmt.Errorf("clients cannot dial %s", host.Host()),
			Want: "the name or public address by which clients reach the server, like vps.example.com",
		}
	}
	id, path := config.Secret(newID().Text()), "/"+strings.ToLower(rand.Text()[:16])

	srv := config.DefaultServer()
	srv.Listen = net.JoinHostPort(listenHost(host), strconv.Itoa(int(p.Port)))
	srv.Users = []config.User{{ID: id, Name: "first"}}
	srv.WS.Path = path
	srv.TLS = config.ServerTLS{CertFile: p.CertFile, KeyFile: p.KeyFile}

	cl := config.DefaultClient()
	cl.Server.Name = host.Host()
	cl.Server.Address, cl.Server.Port = host.Host(), int(p.Port)
	cl.Server.ID = id
	cl.Server.WS.Path = path
	cl.Server.TLS.Enabled = withTLS
	return srv, cl, nil
}

// newID returns a fresh id by which a server's refusals give nothing away.
func newID() vmess.ID {
	for {
		if id := vmess.NewID(); vmess.MinDrain([]vmess.User{{ID: id}}) >= vmess.SafeDrain {
			return id
		}
	}
}

// listenHost is where a server that is reached as host listens.
func listenHost(host netaddr.Addr) string {
	switch {
	case host.Host() == "localhost":
		return "127.0.0.1"
	case host.IP().IsLoopback():
		return host.Host()
	}
	return "" // every address
}
