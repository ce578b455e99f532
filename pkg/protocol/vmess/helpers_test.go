package vmess

import (
	"crypto/cipher"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/chacha20poly1305"
)

func TestMain(m *testing.M) {
	// The timer of a server's MD5 table ends once the server is collected, so its
	// callback may be running when the tests end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("vmess-local/pkg/protocol/vmess.keepLegacy.func1"))
}

func newChaChaFromWhole(key []byte) (cipher.AEAD, error) { return chacha20poly1305.New(key) }

func ipFromSlice(p []byte) (netip.Addr, bool) { return netip.AddrFromSlice(p) }

// datagram reads one datagram into p.
func (r *bodyReader) datagram(p []byte) (int, error) {
	b, plain, err := r.readPacket()
	if err != nil {
		return 0, err
	}
	defer b.Release()
	return copy(p, plain), nil
}
