package direct

import (
	"context"
	"net"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// loopbackResolver answers every name with 127.0.0.1, from memory.
func loopbackResolver(t *testing.T) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answer(server)
		return client, nil
	}}
}

// answer serves one query over a stream, as DNS over TCP does.
func answer(c net.Conn) {
	defer c.Close()
	p := make([]byte, 2+512)
	n, err := c.Read(p)
	if err != nil {
		return
	}
	for n < 2 || n < 2+int(p[0])<<8|int(p[1]) {
		m, err := c.Read(p[n:])
		if err != nil {
			return
		}
		n += m
	}
	var q dnsmessage.Message
	if q.Unpack(p[2:n]) != nil || len(q.Questions) == 0 {
		return
	}
	q.Response, q.Authoritative, q.Additionals = true, true, nil
	if question := q.Questions[0]; question.Type == dnsmessage.TypeA {
		q.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	out, err := q.Pack()
	if err != nil {
		return
	}
	_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
}
