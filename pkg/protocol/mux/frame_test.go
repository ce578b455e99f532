package mux

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"

	"vmess-local/pkg/transport/netaddr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type vector struct {
	ID, Data, Dest, Network, Wire string
	GlobalID                      *string `json:"global_id"`
	Option                        byte
	Session                       uint16
	Status                        Status
}

func vectors(t testing.TB) []vector {
	t.Helper()
	p, err := os.ReadFile("testdata/mux.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(p, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != 27 {
		t.Fatalf("%d vectors, want 27", len(file.Cases))
	}
	return file.Cases
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (v *vector) frame(t testing.TB) Frame {
	f := Frame{Session: v.Session, Status: v.Status, HasData: v.Option&1 != 0, Error: v.Option&2 != 0}
	if v.Dest != "" {
		a, err := netaddr.Parse(v.Dest)
		if err != nil {
			t.Fatal(err)
		}
		f.Address = a
		f.Network = map[string]Network{"tcp": NetworkTCP, "udp": NetworkUDP}[v.Network]
	}
	if v.GlobalID != nil {
		f.GlobalID, f.HasGlobalID = [8]byte(mustHex(t, *v.GlobalID)), true
	}
	return f
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		want, data, wire := v.frame(t), mustHex(t, v.Data), mustHex(t, v.Wire)
		if got := want.Append(nil, data); !bytes.Equal(got, wire) {
			t.Errorf("%s: wrote %x, want %x", v.ID, got, wire)
		}
		r := NewReader(bytes.NewReader(append(bytes.Clone(wire), wire...)))
		for range 2 {
			got, err := r.Next()
			if err != nil || got != want {
				t.Errorf("%s: read %+v, %v; want %+v", v.ID, got, err, want)
			}
			if p, err := io.ReadAll(r); !bytes.Equal(p, data) || err != nil {
				t.Errorf("%s: data %x, %v", v.ID, p, err)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: at the end %v", v.ID, err)
		}
	}
}

func TestBadFrames(t *testing.T) {
	for name, c := range map[string]struct {
		wire string
		want error
	}{
		"meta too short":           {"0003000101", ErrBadFrame},
		"meta too long":            {"0201", ErrBadFrame},
		"status 0":                 {"000400010000", ErrBadFrame},
		"status 5":                 {"000400010500", ErrBadFrame},
		"new without network":      {"000400010100", ErrBadFrame},
		"new, network 3":           {"00050001010003", ErrBadFrame},
		"address cut off":          {"0008000101000100500101", ErrBadFrame},
		"address type 9":           {"000c0001010001005009c0000201", ErrBadFrame},
		"empty name":               {"00090001010001005002" + "00", ErrBadFrame},
		"name cut off":             {"000a0001010001005002" + "0561", ErrBadFrame},
		"stream ends in meta":      {"000400", io.ErrUnexpectedEOF},
		"stream ends in size":      {"00040001020100", io.ErrUnexpectedEOF},
		"stream ends in meta size": {"00", io.ErrUnexpectedEOF},
	} {
		r := NewReader(bytes.NewReader(mustHex(t, c.wire)))
		if f, err := r.Next(); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, f, err, c.want)
		}
	}
	r := NewReader(bytes.NewReader(mustHex(t, "0004000102010005aabb")))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if p, err := io.ReadAll(r); len(p) != 2 || err != io.ErrUnexpectedEOF {
		t.Errorf("data cut off: %x, %v", p, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(mustHex(f, v.Wire))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := NewReader(bytes.NewReader(wire))
		for {
			frame, err := r.Next()
			if err != nil {
				return
			}
			data, err := io.ReadAll(r)
			if err != nil {
				return
			}
			again := NewReader(bytes.NewReader(frame.Append(nil, data)))
			if back, err := again.Next(); err != nil || back != frame {
				t.Fatalf("%+v came back as %+v, %v", frame, back, err)
			}
		}
	})
}
