package tlsconn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// versions are those that the product speaks.
var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// certificate makes one that anybody accepts who does not check.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serverConfig(t testing.TB, version uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MaxVersion: version, DynamicRecordSizingDisabled: true}
}

func clientConfig() *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, DynamicRecordSizingDisabled: true,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
}

func newClient(raw net.Conn, config *tls.Config) *Conn {
	return New(raw, func(below net.Conn) Secure { return tls.Client(below, config) })
}

func newServer(raw net.Conn, config *tls.Config) *Conn {
	return New(raw, func(below net.Conn) Secure { return tls.Server(below, config) })
}

// shake makes the handshake of both ends.
func shake(t testing.TB, a, b Secure) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.HandshakeContext(t.Context()) }()
	if err := a.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tcpPair returns two ends of a TCP connection.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// A deaf connection can do no more than net.Conn demands.
type deaf struct{ net.Conn }

// A tap is a connection whose writes can be held back.
type tap struct {
	net.Conn
	mu   sync.Mutex
	hold bool
	held []byte
	size []int // of the writes
}

func (c *tap) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = append(c.size, len(p))
	if c.hold {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// keep holds writes back from now on.
func (c *tap) keep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold, c.size = true, nil
}

// taken returns what was held back, and forgets it.
func (c *tap) taken() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.held
	c.held = nil
	return held
}

// sizes returns how long the writes since keep were.
func (c *tap) sizes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// A rig is a client's Conn and a bare server over a pipe with room for all that
// a test sends, after the handshake. What the server writes is held back.
type rig struct {
	client *Conn
	server *tls.Conn
	out    *tap // of the server
	sealer *sealer
}

func newRig(t testing.TB, version uint16, low func(net.Conn) net.Conn) *rig {
	t.Helper()
	near, far := transporttest.Pipe(1 << 20)
	var secrets strings.Builder
	config := serverConfig(t, version)
	config.KeyLogWriter = &secrets
	config.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	r := &rig{out: &tap{Conn: far}}
	r.server = tls.Server(r.out, config)
	r.client = newClient(low(near), clientConfig())
	t.Cleanup(func() { _ = r.client.Close(); _ = far.Close() })
	shake(t, r.client, r.server)
	r.out.keep()
	if version == tls.VersionTLS13 {
		r.sealer = newSealer(t, secrets.String())
	}
	return r
}

// deliver sends bytes to the client as they are.
func (r *rig) deliver(t testing.TB, b []byte) {
	t.Helper()
	_ = r.out.SetWriteDeadline(time.Time{}) // a server that has sent close_notify left one
	if _, err := r.out.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// records returns the server's records of these payloads.
func (r *rig) records(t testing.TB, payloads ...string) []byte {
	t.Helper()
	for _, p := range payloads {
		if _, err := r.server.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	return r.out.taken()
}

// A sealer makes records that crypto/tls's server would not (RFC 8446 sections
// 5.2 and 7). It is for connections on which the server writes nothing.
type sealer struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newSealer(t testing.TB, keyLog string) *sealer {
	t.Helper()
	for line := range strings.Lines(keyLog) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "SERVER_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil || len(secret) != sha256.Size {
				t.Fatalf("the cipher is not AES-128: a secret of %d bytes, %v", len(secret), err)
			}
			s := &sealer{secret: secret, seq: 1} // the session ticket was the first
			s.key(t)
			return s
		}
	}
	t.Fatal("no secret in the key log")
	return nil
}

func (s *sealer) expand(t testing.TB, label string, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, s.secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *sealer) key(t testing.TB) {
	t.Helper()
	block, err := aes.NewCipher(s.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	s.iv = s.expand(t, "iv", 12)
}

func (s *sealer) seal(contentType byte, body string) []byte {
	head := []byte{23, 3, 3}
	head = binary.BigEndian.AppendUint16(head, uint16(len(body)+1+s.aead.Overhead()))
	nonce := append([]byte(nil), s.iv...)
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	s.seq++
	return s.aead.Seal(head, nonce, append([]byte(body), contentType), head)
}

func (s *sealer) data(body string) []byte { return s.seal(23, body) }

// keyUpdate changes the keys (RFC 8446 section 4.6.3).
func (s *sealer) keyUpdate(t testing.TB, requested bool) []byte {
	t.Helper()
	body := "\x18\x00\x00\x01\x00"
	if requested {
		body = "\x18\x00\x00\x01\x01"
	}
	record := s.seal(22, body)
	s.secret = s.expand(t, "traffic upd", sha256.Size)
	s.key(t)
	s.seq = 0
	return record
}

// ticket is a session ticket (RFC 8446 section 4.6.1).
func (s *sealer) ticket() []byte {
	return s.seal(22, "\x04\x00\x00\x13"+"\x00\x00\x0e\x10"+"\x00\x00\x00\x00"+"\x02ab"+"\x00\x04tick"+"\x00\x00")
}

// closeNotify says that nothing more will come.
func (s *sealer) closeNotify() []byte { return s.seal(21, "\x01\x00") }
