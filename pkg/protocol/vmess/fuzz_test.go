package vmess

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"vmess-local/pkg/transport"
)

func fuzzServer(t testing.TB, id ID, alterIDs int, now int64) *Server {
	s, err := NewServer(ServerConfig{Users: []User{{ID: id, AlterID: alterIDs}}, Now: at(now), Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkAccept gives the wire to a server and holds what it makes of it against
// what must be true of every outcome.
func checkAccept(t *testing.T, s *Server, wire []byte) {
	carrier := &recorder{in: bytes.NewReader(wire)}
	in, err := s.Accept(t.Context(), carrier)
	if err != nil {
		var refused *RefusedError
		if !errors.As(err, &refused) && !errors.Is(err, ErrNoRequest) {
			t.Fatalf("an error of no known kind: %v", err)
		}
		if !carrier.closed || len(carrier.writes) > 0 || in != nil {
			t.Fatalf("refused, but closed %v, %d writes, %+v", carrier.closed, len(carrier.writes), in)
		}
		return
	}
	switch in.Command {
	case CommandMux:
		if in.Destination.IsValid() {
			t.Fatalf("mux to %s", in.Destination)
		}
	case CommandTCP, CommandUDP:
		if !in.Destination.IsValid() {
			t.Fatal("accepted without a destination")
		}
	default:
		t.Fatalf("accepted command %d", in.Command)
	}
	total := 0
	if in.Command == CommandUDP {
		c, p := in.Packets(), make([]byte, 1<<16)
		for err == nil {
			var n int
			n, _, err = c.ReadPacket(p)
			total += n
		}
		_ = c.WritePacket([]byte("x"), in.Destination)
	} else {
		p, _ := readAll(in.conn.Read)
		total = len(p)
		_, _ = in.conn.Write([]byte("x"))
	}
	if total > len(wire) {
		t.Fatalf("%d bytes came out of %d", total, len(wire))
	}
	_ = in.Abort(nil)
	if !carrier.closed {
		t.Fatal("the carrier is open")
	}
}

// FuzzRequest opens whole requests as they come from the wire.
func FuzzRequest(f *testing.F) {
	for _, c := range cases[struct {
		UUID         hexBytes
		AlterIDCount int `json:"alter_id_count"`
		Now          int64
		Wire         hexBytes
	}](f, "request_header", 13) {
		f.Add([]byte(c.Wire), []byte(c.UUID), uint8(c.AlterIDCount), c.Now)
	}
	for _, c := range cases[struct {
		UUID     hexBytes
		AlterIDs int `json:"alter_id_count"`
		Now      int64
		Request  hexBytes
	}](f, "first_flight", 21) {
		f.Add([]byte(c.Request), []byte(c.UUID), uint8(c.AlterIDs), c.Now)
	}
	for _, r := range refusals(f) {
		f.Add(r.wire, testID[:], uint8(1), noon.Unix())
	}
	f.Fuzz(func(t *testing.T, wire, id []byte, alterIDs uint8, now int64) {
		if len(id) != 16 || alterIDs > 4 || now < 0 || now > 1<<40 {
			return
		}
		checkAccept(t, fuzzServer(t, ID(id), int(alterIDs), now), wire)
	})
}

// FuzzSealedRequest seals what it is given as a header, so that every byte
// gets past the authentication, and puts a body behind it.
func FuzzSealedRequest(f *testing.F) {
	for _, c := range cases[struct {
		Plain hexBytes `json:"header_plain"`
	}](f, "request_header", 13) {
		for _, legacy := range []bool{false, true} {
			f.Add([]byte(c.Plain), []byte("body"), legacy, true)
			f.Add([]byte(c.Plain), []byte("body"), legacy, false)
		}
	}
	f.Fuzz(func(t *testing.T, plain, body []byte, legacy, sum bool) {
		if len(plain) > 60000 {
			return
		}
		fg := forger{id: testID, damage: func([]byte) []byte { return bytes.Clone(plain) }}
		if sum && len(plain) >= 4 { // else no change would get past the checksum
			fg.damage = func([]byte) []byte { return resum(func([]byte) {})(bytes.Clone(plain)) }
		}
		if legacy {
			fg.legacy = testID
		}
		checkAccept(t, fuzzServer(t, testID, 0, noon.Unix()), append(fg.wire(), body...))
	})
}

// FuzzResponse opens a response's header, which is sealed first when asked.
func FuzzResponse(f *testing.F) {
	for _, c := range cases[struct {
		Mode        string
		Plain, Wire hexBytes
		RequestIV   hexBytes `json:"request_iv"`
		RequestKey  hexBytes `json:"request_key"`
		V           byte
	}](f, "response_header", 10) {
		f.Add([]byte(c.Wire), []byte(c.RequestKey), []byte(c.RequestIV), c.V, c.Mode == "md5", false)
		f.Add([]byte(c.Plain), []byte(c.RequestKey), []byte(c.RequestIV), c.V, c.Mode == "md5", true)
	}
	f.Fuzz(func(t *testing.T, wire, key, iv []byte, v byte, legacy, seal bool) {
		if len(key) != 16 || len(iv) != 16 || len(wire) > 60000 {
			return
		}
		k := deriveResponse(&requestHeader{key: [16]byte(key), iv: [16]byte(iv)}, legacy)
		plain := wire
		if seal {
			wire = sealPlainResponse(k, plain)
		}
		for _, r := range []io.Reader{bytes.NewReader(wire), iotest.OneByteReader(bytes.NewReader(wire))} {
			in := newInbuf(r)
			option, _, err := k.open(&in, v)
			switch {
			case err == nil && seal && (plain[0] != v || plain[1] != option):
				t.Fatalf("opened %x to option %d", plain, option)
			case err != nil && !errors.Is(err, ErrBadResponse) && !ends(err):
				t.Fatalf("an error of no known kind: %v", err)
			case err == nil && in.total > int64(len(wire)):
				t.Fatal("read more than there is")
			}
		}
	})
}

// sealPlainResponse is responseKeys.seal for any plain header.
func sealPlainResponse(k responseKeys, plain []byte) []byte {
	if k.legacy {
		out := bytes.Clone(plain)
		cfbEncrypter(k.key[:], k.iv[:]).XORKeyStream(out, out)
		return out
	}
	length := []byte{byte(len(plain) >> 8), byte(len(plain))}
	out := newGCM(kdf16(k.key[:], []byte(saltRespLengthKey))).Seal(nil, kdf12(k.iv[:], []byte(saltRespLengthNonce)), length, nil)
	return newGCM(kdf16(k.key[:], []byte(saltRespHeaderKey))).Seal(out, kdf12(k.iv[:], []byte(saltRespHeaderNonce)), plain, nil)
}

// FuzzBody reads a body as it comes from the wire, in two ways that must
// agree, and as datagrams.
func FuzzBody(f *testing.F) {
	add := func(c *vectorBody) {
		if len(c.Prefix) == 0 {
			f.Add([]byte(c.Stream), byte(c.Security), byte(c.Option), byte(c.Command), []byte(c.BodyKey), []byte(c.BodyIV), uint16(700))
		}
	}
	for _, c := range cases[vectorBody](f, "body", 94) {
		add(&c)
	}
	for _, c := range cases[vectorBody](f, "damaged", 36) {
		c.BodyKey, c.BodyIV = orElse(c.BodyKey, c.Key), orElse(c.BodyIV, c.IV)
		if c.Command == 0 {
			c.Command = CommandTCP
		}
		if len(c.Stream) > 0 {
			add(&c)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, security, option, command byte, key, iv []byte, room uint16) {
		h := requestHeader{security: Security(security), option: Option(option), command: Command(command)}
		if len(key) != 16 || len(iv) != 16 || checkFormat(&h) != nil || len(stream) > 1<<18 {
			return
		}
		h.key, h.iv = [16]byte(key), [16]byte(iv)
		decoder := func(r io.Reader) *bodyReader {
			b := &bodyReader{in: newInbuf(r)}
			b.start(requestFormat(&h, false), nil)
			return b
		}
		a := decoder(bytes.NewReader(stream))
		whole, wholeErr := readWith(a.read, transport.BufferSize)
		b := decoder(iotest.OneByteReader(bytes.NewReader(stream)))
		if len(stream) > 2000 {
			b = decoder(iotest.HalfReader(bytes.NewReader(stream)))
		}
		pieces, piecesErr := readWith(b.read, int(room)+1)
		if !bytes.Equal(whole, pieces) || (wholeErr == nil) != (piecesErr == nil) || wholeErr != nil && wholeErr.Error() != piecesErr.Error() {
			t.Fatalf("at once %d bytes, %v; in pieces %d bytes, %v", len(whole), wholeErr, len(pieces), piecesErr)
		}
		if len(whole) > len(stream) {
			t.Fatalf("%d bytes came out of %d", len(whole), len(stream))
		}
		if a.in.buf != nil && a.in.buffered() == 0 || b.rest != nil {
			t.Fatal("a reader at its end holds a buffer for nothing")
		}
		if format := requestFormat(&h, false); format.raw() {
			return
		}
		c, p := decoder(bytes.NewReader(stream)), make([]byte, 1<<16)
		var datagrams []byte
		for {
			n, err := c.datagram(p)
			datagrams = append(datagrams, p[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(datagrams, whole) {
			t.Fatalf("%d bytes as a stream, %d as datagrams", len(whole), len(datagrams))
		}
	})
}

func readWith(read func([]byte) (int, error), room int) (all []byte, err error) {
	p := make([]byte, room)
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

// FuzzDamage seals chunks and spoils them: what still arrives is a beginning
// of what was sent, and an end within it is no end.
func FuzzDamage(f *testing.F) {
	for i := range styles() {
		f.Add(uint8(i), uint32(1), uint16(100), uint16(20000), uint32(50), byte(1), false)
		f.Add(uint8(i), uint32(2), uint16(1), uint16(1), uint32(3), byte(0x80), true)
	}
	all := styles()
	f.Fuzz(func(t *testing.T, pick uint8, seed uint32, first, second uint16, where uint32, flip byte, cut bool) {
		st := all[int(pick)%len(all)]
		h := requestHeader{security: st.method.Security, option: st.method.Option, command: CommandTCP}
		copy(h.key[:], pattern(32, uint64(seed)))
		copy(h.iv[:], pattern(16, uint64(seed)+1))
		format := requestFormat(&h, st.legacy)
		w := newBodyWriter(format, nil)
		plain := pattern(int(first)+int(second), 5)
		wire := w.seal(nil, plain[:first])
		wire = w.seal(wire, plain[first:])
		whole := len(wire)
		wire = w.sealEnd(wire)
		spot := int(where) % len(wire)
		if cut {
			wire = wire[:spot]
		} else {
			wire[spot] ^= flip
		}
		r := &bodyReader{in: newInbuf(bytes.NewReader(wire))}
		r.start(format, nil)
		got, err := readWith(r.read, 5000)
		if st.method.Security != SecurityNone && !bytes.HasPrefix(plain, got) {
			t.Fatalf("%s: bytes arrived that nobody sent", st.name)
		}
		if cut && spot >= whole && (len(got) != len(plain)) {
			t.Fatalf("%s: %d of %d bytes arrived though only the end mark was cut, %v", st.name, len(got), len(plain), err)
		}
		authentic := st.method.Security == SecurityAESGCM || st.method.Security == SecurityChaCha20Poly1305
		if !cut && flip != 0 && authentic && err == nil && len(got) == len(plain) && spot < whole && !st.method.Option.has(OptionPadding) {
			t.Fatalf("%s: damage at byte %d of %d went unnoticed", st.name, spot, whole)
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, c := range cases[struct{ Text string }](f, "ids", 11) {
		f.Add(c.Text)
	}
	for _, s := range []string{"", "-", "----", "cafe", strings.Repeat("x", 31), "{b831381d-6324-4d53-ad4f-8cda48b30811}", "b831381d-6324-4d53-ad4f-8cda48b3081g"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !errors.Is(err, ErrBadID) || id != (ID{}) {
				t.Fatalf("%v, %v", id.Text(), err)
			}
			return
		}
		if again, err := ParseID(id.Text()); err != nil || again != id {
			t.Fatalf("%s parses to %s, %v", id.Text(), again.Text(), err)
		}
		if strings.Trim(s, "0123456789abcdefABCDEF-") == "" && len(s) != 32 && len(s) != 36 {
			t.Fatalf("%q is an id", s)
		}
	})
}
