package udp

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"vmess-local/pkg/transport/netaddr"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 255)
	for _, c := range []struct {
		name, in, to, payload string
		err                   error
	}{
		{name: "IPv4", in: "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35hi", to: "192.0.2.1:53", payload: "hi"},
		{name: "IPv6", in: "\x00\x00\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x01\xbbx", to: "[2001:db8::1]:443", payload: "x"},
		{name: "mapped", in: "\x00\x00\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x01\x00\x35x", to: "192.0.2.1:53", payload: "x"},
		{name: "name", in: "\x00\x00\x00\x03\x0bexample.com\x00\x35x", to: "example.com:53", payload: "x"},
		{name: "address in words", in: "\x00\x00\x00\x03\x09192.0.2.1\x00\x35x", to: "192.0.2.1:53", payload: "x"},
		{name: "longest name", in: "\x00\x00\x00\x03\xff" + long + "\x00\x35x", to: long + ":53", payload: "x"},
		{name: "RSV", in: "\x01\x02\x00\x01\xc0\x00\x02\x01\x00\x35hi", to: "192.0.2.1:53", payload: "hi"},

		{name: "fragment", in: "\x00\x00\x01\x01\xc0\x00\x02\x01\x00\x35hi", err: ErrFragment},
		{name: "last fragment", in: "\x00\x00\x81\x01\xc0\x00\x02\x01\x00\x35hi", err: ErrFragment},
		{name: "no payload", in: "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35", err: ErrNothing},
		{name: "port 0", in: "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x00hi", err: ErrNothing},
		{name: "nothing", in: "", err: ErrMalformed},
		{name: "type only", in: "\x00\x00\x00\x01", err: ErrMalformed},
		{name: "unknown type", in: "\x00\x00\x00\x02\xc0\x00\x02\x01\x00\x35hi", err: ErrMalformed},
		{name: "short IPv4", in: "\x00\x00\x00\x01\xc0\x00\x02\x01\x00", err: ErrMalformed},
		{name: "short IPv6", in: "\x00\x00\x00\x04" + strings.Repeat("\x20", 17), err: ErrMalformed},
		{name: "short name", in: "\x00\x00\x00\x03\x0bexample.com\x00", err: ErrMalformed},
		{name: "empty name", in: "\x00\x00\x00\x03\x00\x00\x35hi", err: ErrMalformed},
		{name: "bad name", in: "\x00\x00\x00\x03\x03a b\x00\x35hi", err: ErrMalformed},
		{name: "NUL in the name", in: "\x00\x00\x00\x03\x03a\x00b\x00\x35hi", err: ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, payload, err := make(names).parse([]byte(c.in))
			if !errors.Is(err, c.err) || to.String() != c.to || string(payload) != c.payload {
				t.Errorf("got %q to %s, %v", payload, to, err)
			}
		})
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := make(names)
	for i := range 4 * maxNames {
		name := strings.Repeat("a", 1+i%255)
		if a, err := n.addr([]byte(name), uint16(i)); err != nil || a.Host() != name || a.Port() != uint16(i) {
			t.Fatalf("got %s, %v", a, err)
		}
		if len(n) > maxNames {
			t.Fatalf("remembers %d names", len(n))
		}
	}
}

// Every datagram that parses is written as one that parses to the same, and
// nothing of its payload is lost.
func FuzzDatagram(f *testing.F) {
	for _, to := range []string{"192.0.2.1:53", "[2001:db8::1]:443", "example.com:53", "a:1"} {
		f.Add(pack(addr(to), []byte("payload")))
	}
	f.Add([]byte("\x00\x00\x01\x01\xc0\x00\x02\x01\x00\x35hi"))
	f.Add([]byte("\x00\x00\x00\x03\x00\x00\x35hi"))
	f.Fuzz(func(t *testing.T, p []byte) {
		n := make(names)
		to, payload, err := n.parse(p)
		if err != nil {
			if to != (netaddr.Addr{}) || payload != nil || !errors.Is(dropOf(err).cause(), err) {
				t.Fatalf("%v with %s and %d bytes", err, to, len(payload))
			}
			return
		}
		if !to.IsValid() || to.Port() == 0 || len(payload) == 0 || !bytes.HasSuffix(p, payload) {
			t.Fatalf("%d bytes to %q", len(payload), to)
		}
		header := appendHeader(nil, to)
		if len(header) > maxHeader {
			t.Fatalf("a header of %d bytes", len(header))
		}
		again, same, err := n.parse(append(header, payload...))
		if err != nil || again != to || !bytes.Equal(same, payload) {
			t.Fatalf("%s is read back as %s, %v", to, again, err)
		}
	})
}
