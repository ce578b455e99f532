package tlsconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// refusalWait is how long the answer to a request in plain may take to write.
const refusalWait = time.Second

// A Listener accepts connections and speaks TLS on them as a server. Its
// fields must not change after the first Accept.
type Listener struct {
	// Listener is the one below. A connection of its that can wait without a
	// buffer (see [New]) is used so.
	net.Listener
	// Config is the server's.
	Config *tls.Config
	// Timeout bounds each handshake, which the first Read or Write makes; 0
	// leaves it to the connection's deadlines.
	Timeout time.Duration
	// Failed, when not nil, is told of handshakes that failed, by the goroutine
	// that made them. It must not block.
	Failed func(from net.Addr, err error)
}

// Accept returns the next connection as a [*Conn]. It does not wait for the
// handshake. A far end that speaks HTTP in plain is told so in plain.
func (l *Listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := New(raw, func(below net.Conn) Secure { return tls.Server(below, l.Config) })
	c.timeout, c.failed = l.Timeout, l.refuse
	return c, nil
}

func (l *Listener) refuse(c *Conn, err error) {
	var other tls.RecordHeaderError
	if errors.As(err, &other) && other.Conn != nil && looksLikeHTTP(other.RecordHeader) {
		_ = c.SetWriteDeadline(time.Now().Add(refusalWait))
		_, _ = io.WriteString(&c.records, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		_ = c.Close()
	}
	if l.Failed != nil {
		l.Failed(c.RemoteAddr(), err)
	}
}

// looksLikeHTTP reports whether a request begins so, by its method.
func looksLikeHTTP(start [headerLen]byte) bool {
	switch string(start[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}
