package vmess

import (
	"crypto/cipher"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/chacha20poly1305"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
