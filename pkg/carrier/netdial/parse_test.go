package netdial

import (
	"errors"
	"slices"
	"testing"
)

// FuzzConnectHead checks that no answer of a proxy breaks the parser, and that
// it does not matter in which pieces the answer arrives.
func FuzzConnectHead(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\nrest", "HTTP/1.1 407\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP/1.0 403 x\n\n",
		"HTTP/1.1", "HTTP/1.1\r\n\r\n", "HTTP/1.1  200\r\n\r\n", "HTTP/1.1 999 \x00\r\n:\r\n\r\n", "HTTP/2 200\r\n\r\n", "", "\r\n\r\n", "HTTP/1.1 +20\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head, size, err := parseConnectHead(b)
		var refusal *UpstreamError
		switch {
		case err != nil:
			if size != 0 || !errors.As(err, &refusal) && !errors.Is(err, ErrLongHead) {
				t.Fatalf("size %d, error %v", size, err)
			}
			return
		case size == 0:
			if len(b) >= maxConnectHead {
				t.Fatal("asks for more than the bound")
			}
			return
		}
		if size > len(b) || b[size-1] != '\n' || head.status < 100 || head.status > 999 {
			t.Fatalf("status %d, %d of %d bytes", head.status, size, len(b))
		}
		known := []string{"Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer", "another"}
		for _, scheme := range head.schemes {
			if !slices.Contains(known, scheme) {
				t.Fatalf("a scheme of the proxy's own: %q", scheme)
			}
		}
		if _, again, err := parseConnectHead(b[:size]); again != size || err != nil {
			t.Fatalf("the head alone: size %d, %v", again, err)
		}
		if _, part, err := parseConnectHead(b[:size-1]); part != 0 || err != nil {
			t.Fatalf("all but its last byte: size %d, %v", part, err)
		}
	})
}
