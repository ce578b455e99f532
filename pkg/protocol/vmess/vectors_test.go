package vmess

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// The vectors were made by independent implementations: see
// testdata/vectors/README.md.

// hexBytes is hexadecimal text in a vector file.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(p []byte) error {
	var s string
	if err := json.Unmarshal(p, &s); err != nil {
		return err
	}
	b, err := hex.DecodeString(s)
	*h = b
	return err
}

func (h hexBytes) id() ID         { return ID(h) }
func (h hexBytes) key() [16]byte  { return [16]byte(h) }
func unixTime(s int64) time.Time  { return time.Unix(s, 0) }
func at(s int64) func() time.Time { return func() time.Time { return unixTime(s) } }

// cases loads a vector file and fails when it has not the number of cases
// that it is known to have, so that no vector is lost in silence.
func cases[T any](t testing.TB, name string, want int) []T {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", "vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []T }
	if err := json.Unmarshal(p, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != want {
		t.Fatalf("%s has %d cases, want %d", name, len(file.Cases), want)
	}
	return file.Cases
}

func TestVectorIDs(t *testing.T) {
	for _, c := range cases[struct {
		ID, Kind, Text string
		UUID           hexBytes
		Cmd            hexBytes   `json:"cmd_key"`
		AlterIDs       []hexBytes `json:"alter_ids"`
	}](t, "ids", 11) {
		id, err := ParseID(c.Text)
		if strings.Trim(c.Text, "0123456789abcdefABCDEF-") == "" && len(c.UUID) == 16 && c.Kind == "name" {
			// Peers map this to a name's id. Here text of hexadecimal digits only
			// is a UUID that lost characters, never another identity.
			if !errors.Is(err, ErrBadID) {
				t.Errorf("%s: taken as a name: %v", c.ID, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(id[:], c.UUID) {
			t.Errorf("%s: ParseID = %x, %v", c.ID, id[:], err)
			continue
		}
		if key := id.cmdKey(); !bytes.Equal(key[:], c.Cmd) {
			t.Errorf("%s: cmd key %x, want %x", c.ID, key, c.Cmd)
		}
		for i, alter := range id.alterIDs(len(c.AlterIDs)) {
			if !bytes.Equal(alter[:], c.AlterIDs[i]) {
				t.Errorf("%s: alter id %d is %x, want %x", c.ID, i, alter[:], c.AlterIDs[i])
			}
		}
	}
}

// TestKDFKeySizes compares with the nest of the standard library's HMAC, with
// path elements about the size of a block, which alone is not hashed.
func TestKDFKeySizes(t *testing.T) {
	for _, n := range []int{0, 1, hmacBlock - 1, hmacBlock, hmacBlock + 1} {
		path := [][]byte{bytes.Repeat([]byte("a"), n), bytes.Repeat([]byte("b"), n)}
		level := func() hash.Hash { return hmac.New(sha256.New, []byte("VMess AEAD KDF")) }
		for _, p := range path {
			below := level
			level = func() hash.Hash { return hmac.New(below, p) }
		}
		h := level()
		_, _ = h.Write([]byte("key"))
		if got := kdf([]byte("key"), path...); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("a path of %d bytes each: %x", n, got)
		}
	}
}

func TestVectorKDF(t *testing.T) {
	for _, c := range cases[struct {
		ID       string
		Key, Out hexBytes
		Path     []hexBytes
	}](t, "kdf", 17) {
		path := make([][]byte, len(c.Path))
		for i, p := range c.Path {
			path[i] = p
		}
		if out := kdf(c.Key, path...); !bytes.Equal(out[:], c.Out) {
			t.Errorf("%s: %x, want %x", c.ID, out, c.Out)
		}
	}
}

func TestVectorAuthID(t *testing.T) {
	filter := newReplayFilter[[16]byte](authIDMemory, memorySpare, memoryLimit)
	for _, c := range cases[struct {
		ID, Kind    string
		CmdKey      hexBytes `json:"cmd_key"`
		AuthID      hexBytes `json:"auth_id"`
		Key         hexBytes `json:"aes128_key"`
		Rand        hexBytes
		Time        int64
		ServerClock int64 `json:"server_clock"`
		Accepted    bool
	}](t, "authid", 14) {
		block := authIDCipher(c.CmdKey.key())
		unix, ok := openAuthID(block, c.AuthID.key())
		switch c.Kind {
		case "make":
			if id := sealAuthID(block, unixTime(c.Time), [4]byte(c.Rand)); !bytes.Equal(id[:], c.AuthID) {
				t.Errorf("%s: made %x, want %x", c.ID, id, c.AuthID)
			}
			if !ok || unix != c.Time {
				t.Errorf("%s: opened to %d, %v", c.ID, unix, ok)
			}
		case "match":
			// One filter for all: one case is another's replay.
			clock := unixTime(c.ServerClock)
			if got := ok && inWindow(unix, clock) && filter.add(c.AuthID.key(), clock); got != c.Accepted {
				t.Errorf("%s: accepted %v, want %v", c.ID, got, c.Accepted)
			}
		default:
			t.Errorf("%s: unknown kind %q", c.ID, c.Kind)
		}
	}
}

func TestVectorPrimitives(t *testing.T) {
	for _, c := range cases[struct {
		ID, Op             string
		Key, Out, IV, Data hexBytes
		Words              []uint16
		Nonces             []struct {
			N     int
			Nonce hexBytes
		}
		Time int64
	}](t, "primitives", 19) {
		var got []byte
		switch c.Op {
		case "chacha_key":
			// The key cannot be read out of an AEAD, so both seal the same.
			want, _ := newChaChaFromWhole(c.Out)
			nonce := make([]byte, 12)
			if !bytes.Equal(newChaCha(c.Key.key()).Seal(nil, nonce, []byte("x"), nil), want.Seal(nil, nonce, []byte("x"), nil)) {
				t.Errorf("%s: another key", c.ID)
			}
			continue
		case "shake_mask":
			words := newWordSource(c.IV.key())
			for i, w := range c.Words {
				if got := words.next(); got != w {
					t.Fatalf("%s: word %d is %d, want %d", c.ID, i, got, w)
				}
			}
			continue
		case "chunk_nonce":
			for _, n := range c.Nonces {
				ch := chunker{count: uint16(n.N)}
				copy(ch.nonce[2:], c.IV[2:12])
				if got := ch.nextNonce(); !bytes.Equal(got, n.Nonce) {
					t.Errorf("%s: nonce %d is %x, want %x", c.ID, n.N, got, n.Nonce)
				}
			}
			continue
		case "fnv1a32":
			sum := fnv1a(c.Data)
			got = []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
		case "legacy_auth":
			hash := legacyHash(c.Key.id(), c.Time)
			got = hash[:]
		case "legacy_iv":
			iv := legacyIV(c.Time)
			got = iv[:]
		default:
			t.Fatalf("%s: unknown operation %q", c.ID, c.Op)
		}
		if !bytes.Equal(got, c.Out) {
			t.Errorf("%s: %x, want %x", c.ID, got, c.Out)
		}
	}
}

// vectorHeader is a header's fields in a vector.
type vectorHeader struct {
	Addr     string
	AddrHex  hexBytes `json:"addr_hex"`
	AddrType byte     `json:"addr_type"`
	Command  Command
	IV, Key  hexBytes
	Option   Option
	Padding  hexBytes
	Port     uint16
	Security Security
	V        byte
}

func (v *vectorHeader) header(t *testing.T) *requestHeader {
	t.Helper()
	h := &requestHeader{iv: v.IV.key(), key: v.Key.key(), v: v.V, option: v.Option, security: v.Security, command: v.Command}
	switch {
	case v.Command == CommandMux:
	case v.AddrType == addrDomain:
		a, err := netaddr.FromHost(v.Addr, v.Port)
		if err != nil {
			t.Fatal(err)
		}
		h.address = a
	default:
		ip, ok := ipFromSlice(v.AddrHex)
		if !ok {
			t.Fatalf("address %x", v.AddrHex)
		}
		h.address = netaddr.FromIP(ip, v.Port)
	}
	return h
}

func TestVectorRequestHeader(t *testing.T) {
	for _, c := range cases[struct {
		ID, Mode     string
		UUID         hexBytes
		AlterIDCount int      `json:"alter_id_count"`
		AuthID       hexBytes `json:"auth_id"`
		AuthIDTime   int64    `json:"auth_id_time"`
		Nonce        hexBytes `json:"connection_nonce"`
		HashID       hexBytes `json:"hash_id"`
		Time         int64
		Header       vectorHeader
		Plain        hexBytes `json:"header_plain"`
		Now          int64
		Wire         hexBytes
	}](t, "request_header", 13) {
		t.Run(c.ID, func(t *testing.T) {
			want := c.Header.header(t)
			plain := want.append(nil, c.Header.Padding)
			// An IPv4-mapped address is sent as IPv4 by this package.
			if !bytes.Equal(plain, c.Plain) {
				t.Fatalf("plain header\n%x, want\n%x", plain, c.Plain)
			}
			id := c.UUID.id()
			var wire []byte
			if c.Mode == "aead" {
				wire = sealAEAD(nil, id.cmdKey(), c.AuthID.key(), [8]byte(c.Nonce), plain)
			} else {
				wire = sealLegacy(nil, id.cmdKey(), c.HashID.id(), unixTime(c.Time), plain)
			}
			if !bytes.Equal(wire, c.Wire) {
				t.Fatalf("wire\n%x, want\n%x", wire, c.Wire)
			}
			s := vectorServer(t, id, c.AlterIDCount, c.Now)
			in := newInbuf(bytes.NewReader(c.Wire))
			o := requestParser{server: s, in: &in, now: s.now()}
			got, err := o.open()
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if *got != *want {
				t.Fatalf("opened to %+v, want %+v", got, want)
			}
		})
	}
}

// vectorServer accepts both modes.
func vectorServer(t *testing.T, id ID, alterIDs int, clock int64) *Server {
	t.Helper()
	s, err := NewServer(ServerConfig{Users: []User{{ID: id, AlterID: alterIDs, Name: "vector"}}, Now: at(clock), Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVectorResponseHeader(t *testing.T) {
	for _, c := range cases[struct {
		ID, Mode    string
		Plain       hexBytes
		RequestIV   hexBytes `json:"request_iv"`
		RequestKey  hexBytes `json:"request_key"`
		ResponseIV  hexBytes `json:"response_iv"`
		ResponseKey hexBytes `json:"response_key"`
		V           byte
		Wire        hexBytes
	}](t, "response_header", 10) {
		h := &requestHeader{key: c.RequestKey.key(), iv: c.RequestIV.key()}
		k := deriveResponse(h, c.Mode == "md5")
		if !bytes.Equal(k.key[:], c.ResponseKey) || !bytes.Equal(k.iv[:], c.ResponseIV) {
			t.Errorf("%s: keys %x %x", c.ID, k.key, k.iv)
		}
		if len(c.Plain) == 4 { // without a command, which this server never sends
			if wire, _ := k.seal(nil, c.V, c.Plain[1]); !bytes.Equal(wire, c.Wire) {
				t.Errorf("%s: sealed to %x, want %x", c.ID, wire, c.Wire)
			}
		}
		in := newInbuf(bytes.NewReader(c.Wire))
		if option, _, err := k.open(&in, c.V); err != nil || option != c.Plain[1] || in.buffered() != 0 {
			t.Errorf("%s: opened to option %d, %v, %d bytes left", c.ID, option, err, in.buffered())
		}
		in = newInbuf(bytes.NewReader(c.Wire))
		if _, _, err := k.open(&in, c.V+1); !errors.Is(err, ErrBadResponse) {
			t.Errorf("%s: with another V: %v", c.ID, err)
		}
	}
}

type vectorBody struct {
	ID        string
	Security  Security
	Option    Option
	Command   Command
	Direction string
	Mode      string   `json:"header_mode"`
	Key, IV   hexBytes // of the request
	BodyKey   hexBytes `json:"body_key"`
	BodyIV    hexBytes `json:"body_iv"`
	Stream    hexBytes
	Prefix    hexBytes `json:"response_prefix"`
	Chunks    []struct {
		Plain, Padding hexBytes
		WireLen        int `json:"wire_len"`
	}
	Terminator *struct {
		Padding hexBytes
		WireLen int `json:"wire_len"`
	}
}

func (v *vectorBody) format() bodyFormat {
	return bodyFormat{
		security: v.Security, option: v.Option, command: v.Command,
		key: v.BodyKey.key(), iv: v.BodyIV.key(), lenKey: v.Key.key(), lenIV: v.IV.key(), legacy: v.Mode == "md5",
	}
}

// encode seals the vector's chunks with the vector's padding.
func (v *vectorBody) encode(t *testing.T) []byte {
	w := newBodyWriter(v.format(), nil)
	var out []byte
	if len(v.Prefix) > 0 { // the legacy response's header runs on into the body
		w = newBodyWriter(v.format(), cfbEncrypter(v.BodyKey, v.BodyIV))
		out = append(out, v.Prefix...)
		w.stream.XORKeyStream(make([]byte, 4), prefixPlain(v))
	}
	add := func(plain, padding []byte) {
		start := len(out)
		if w.chunks == nil {
			out = append(out, plain...)
		} else {
			out = w.chunks.sealPadded(out, plain, func(dst []byte, n int) []byte {
				if n != len(padding) {
					t.Fatalf("drew %d bytes of padding, want %d", n, len(padding))
				}
				return append(dst, padding...)
			})
		}
		w.encrypt(out[start:])
	}
	for _, c := range v.Chunks {
		add(c.Plain, c.Padding)
	}
	if v.Terminator != nil {
		add(nil, v.Terminator.Padding)
	}
	return out[len(v.Prefix):]
}

func prefixPlain(v *vectorBody) []byte {
	plain := make([]byte, len(v.Prefix))
	cfbDecrypter(v.BodyKey, v.BodyIV).XORKeyStream(plain, v.Prefix)
	return plain
}

func (v *vectorBody) decoder(stream []byte) *bodyReader {
	r := &bodyReader{in: newInbuf(bytes.NewReader(stream))}
	if len(v.Prefix) > 0 {
		s := cfbDecrypter(v.BodyKey, v.BodyIV)
		s.XORKeyStream(make([]byte, len(v.Prefix)), v.Prefix)
		r.start(v.format(), s)
		return r
	}
	r.start(v.format(), nil)
	return r
}

func TestVectorBody(t *testing.T) {
	for _, c := range cases[vectorBody](t, "body", 94) {
		t.Run(c.ID, func(t *testing.T) {
			if got := c.encode(t); !bytes.Equal(got, c.Stream) {
				t.Fatalf("encoded\n%x, want\n%x", got, c.Stream)
			}
			var want []byte
			for _, p := range c.Chunks {
				want = append(want, p.Plain...)
			}
			got, err := readAll(c.decoder(c.Stream).read)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("decoded %x, %v; want %x", got, err, want)
			}
			if c.Command == CommandUDP {
				r := c.decoder(c.Stream)
				p := make([]byte, 2048)
				for i, chunk := range c.Chunks {
					n, err := r.datagram(p)
					if err != nil || !bytes.Equal(p[:n], chunk.Plain) {
						t.Fatalf("datagram %d: %x, %v", i, p[:n], err)
					}
				}
				if _, err := r.datagram(p); err != io.EOF {
					t.Fatalf("after the last datagram: %v", err)
				}
			}
		})
	}
}

func readAll(read func([]byte) (int, error)) ([]byte, error) {
	var all []byte
	p := make([]byte, 777) // no divisor of anything
	for {
		n, err := read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func TestVectorBodySizes(t *testing.T) {
	for _, c := range cases[struct {
		vectorBody
		Size    int
		Padding []hexBytes
	}](t, "body_sizes", 18) {
		want := make([]byte, c.Size)
		for i := range want {
			want[i] = byte(7*i + 3 + i>>8)
		}
		got, err := readAll(c.decoder(c.Stream).read)
		if err != nil || !bytes.Equal(got, append(want, "ok"...)) {
			t.Errorf("%s: %d bytes, %v", c.ID, len(got), err)
		}
		w, i := newChunker(c.format()), 0
		pad := func(dst []byte, n int) []byte { return append(dst, c.Padding[i]...) }
		var out []byte
		for _, p := range [][]byte{want, []byte("ok"), nil} {
			out = w.sealPadded(out, p, pad)
			i++
		}
		if !bytes.Equal(out, c.Stream) {
			t.Errorf("%s: encoded to other bytes", c.ID)
		}
	}
}

func TestVectorDamaged(t *testing.T) {
	type damaged struct {
		vectorBody
		Kind, Damage string
		GoodChunks   []hexBytes `json:"good_chunks"`
		AlterIDs     int        `json:"alter_id_count"`
		ServerClock  int64      `json:"server_clock"`
		ServerUUID   hexBytes   `json:"server_uuid"`
		V2RayError   string     `json:"v2ray_error"`
		SecondWire   hexBytes   `json:"second_wire"`
		SecondError  string     `json:"second_v2ray_error"`
		ThirdError   string     `json:"third_v2ray_error"`
		Wire         hexBytes
	}
	// What a body's damage must come to. Where two reasons stand, which one it
	// is depends on the length that the damaged field happens to say.
	outcome := map[string][]error{
		"flip-data": {ErrBadChunk}, "flip-length": {ErrBadChunk, io.ErrUnexpectedEOF}, "flip-tag": {ErrBadChunk},
		"cut-mid": {io.ErrUnexpectedEOF}, "cut-no-terminator": nil, "terminator-then-junk": nil,
		"terminator-only-length": {io.ErrUnexpectedEOF}, "forged-tag-terminator": {ErrBadChunk},
	}
	for _, c := range cases[damaged](t, "damaged", 36) {
		t.Run(c.ID+"/"+c.Damage, func(t *testing.T) {
			if c.Kind == "body" {
				c.BodyKey, c.BodyIV = orElse(c.BodyKey, c.Key), orElse(c.BodyIV, c.IV)
				want, known := outcome[c.Damage]
				if !known {
					t.Fatalf("unknown damage %q", c.Damage)
				}
				if c.Security == SecurityNone && (c.Damage == "flip-tag" || c.Damage == "flip-data") {
					want = nil // nothing protects the data of none
				}
				if c.Security == SecurityAESCFB && c.Damage == "terminator-only-length" {
					want = nil // nor the length of aes-128-cfb: V2Ray's readers stop there
				}
				got, err := readAll(c.decoder(c.Stream).read)
				if len(want) == 0 && err != nil || len(want) > 0 && !isAny(err, want) {
					t.Errorf("ended with %v, want %v", err, want)
				}
				var good []byte
				for _, p := range c.GoodChunks {
					good = append(good, p...)
				}
				if !bytes.HasPrefix(good, got) && c.Security != SecurityNone {
					t.Errorf("delivered %x, of which only a beginning of %x is genuine", got, good)
				}
				if len(want) == 0 && c.Security != SecurityNone && len(got) != len(good) {
					t.Errorf("delivered %d of %d bytes", len(got), len(good))
				}
				return
			}
			s := vectorServer(t, c.ServerUUID.id(), c.AlterIDs, c.ServerClock)
			for i, try := range []struct {
				wire hexBytes
				want string
			}{{c.Wire, c.V2RayError}, {c.SecondWire, c.SecondError}, {c.SecondWire, c.ThirdError}} {
				if len(try.wire) == 0 {
					continue
				}
				expectRefusal(t, s, i+1, try.wire, try.want)
			}
		})
	}
}

func orElse(p, q hexBytes) hexBytes {
	if len(p) > 0 {
		return p
	}
	return q
}

func isAny(err error, want []error) bool {
	for _, w := range want {
		if errors.Is(err, w) {
			return true
		}
	}
	return false
}

// expectRefusal sends one request and holds the server's error against the
// last words of V2Ray's.
func expectRefusal(t *testing.T, s *Server, round int, wire []byte, v2ray string) {
	t.Helper()
	client, carrier := transporttest.Pipe(1 << 16)
	_, _ = client.Write(wire)
	_, _ = client.Write(make([]byte, 4000)) // more than any refusal reads on for
	_, err := s.Accept(t.Context(), carrier)
	if v2ray == "" {
		if err != nil {
			t.Fatalf("round %d: refused: %v", round, err)
		}
		return
	}
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("round %d: %v, want a refusal like %q", round, err, v2ray)
	}
	for _, word := range []string{"invalid user", "Not Found", "AEAD read failed", "replayed request", "invalid auth", "legacy userHash tainted", "duplicated session id, possibly under replay attack, userHash tainted", "ErrTainted"} {
		if strings.Contains(v2ray, word) && !strings.Contains(err.Error(), word) {
			t.Errorf("round %d: %q lacks %q of %q", round, err, word, v2ray)
		}
	}
}

func TestVectorFirstFlight(t *testing.T) {
	for _, c := range cases[struct {
		ID, Mode        string
		UUID            hexBytes
		AlterIDs        int `json:"alter_id_count"`
		Dest            string
		Header          vectorHeader
		Now             int64
		Payload, Reply  []hexBytes
		Terminated      bool
		ReplyTerminated bool `json:"reply_terminated"`
		Request         hexBytes
		Response        hexBytes
	}](t, "first_flight", 21) {
		t.Run(c.ID, func(t *testing.T) {
			s := vectorServer(t, c.UUID.id(), c.AlterIDs, c.Now)
			client, carrier := transporttest.Pipe(1 << 20)
			_, _ = client.Write(c.Request)
			_ = client.CloseWrite()
			in, err := s.Accept(t.Context(), carrier)
			if err != nil {
				t.Fatal(err)
			}
			if in.Destination.String() != c.Dest || in.Command != c.Header.Command || in.Legacy != (c.Mode == "md5") {
				t.Fatalf("got %v to %v, legacy %v", in.Command, in.Destination, in.Legacy)
			}
			checkFlight(t, in.conn.reader.read, in.conn.reader.datagram, in.Command, c.Payload)

			h := c.Header.header(t)
			reply, far := transporttest.Pipe(1 << 20)
			_, _ = far.Write(c.Response)
			_ = far.CloseWrite()
			cl := NewAccount(AccountConfig{ID: c.UUID.id(), AlterID: c.AlterIDs, AEADDisabled: c.Mode == "md5"})
			conn := &Conn{delayedEnd: &delayedEnd{patience: time.Minute}}
			conn.attach(reply)
			keys := deriveResponse(h, c.Mode == "md5")
			if err := cl.readResponse(conn, h, keys); err != nil {
				t.Fatalf("response: %v", err)
			}
			if cl.LastAnswer().IsZero() {
				t.Error("an authentic answer left no trace")
			}
			checkFlight(t, conn.reader.read, conn.reader.datagram, c.Header.Command, c.Reply)
		})
	}
}

func checkFlight(t *testing.T, read, readPacket func([]byte) (int, error), command Command, want []hexBytes) {
	t.Helper()
	if command != CommandUDP {
		got, err := readAll(read)
		var all []byte
		for _, p := range want {
			all = append(all, p...)
		}
		if err != nil || !bytes.Equal(got, all) {
			t.Fatalf("read %d bytes, %v; want %d", len(got), err, len(all))
		}
		return
	}
	p := make([]byte, 1<<16)
	for i, w := range want {
		if n, err := readPacket(p); err != nil || !bytes.Equal(p[:n], w) {
			t.Fatalf("datagram %d: %d bytes, %v; want %d", i, n, err, len(w))
		}
	}
	if _, err := readPacket(p); err != io.EOF {
		t.Fatalf("after the last datagram: %v", err)
	}
}

// TestVectorFiles holds the test data against the list of vectors above.
func TestVectorFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "vectors", "*.json"))
	if err != nil || len(files) != 11 {
		t.Fatalf("%d vector files, %v; want 11", len(files), err)
	}
}
