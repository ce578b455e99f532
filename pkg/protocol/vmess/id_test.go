package vmess

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	const whole = "b831381d-6324-4d53-ad4f-8cda48b30811"
	bare := strings.ReplaceAll(whole, "-", "")
	for _, c := range []struct {
		name, in, out string // out "" is an error
		words         string // of the error
	}{
		{"dashes", whole, whole, ""},
		{"bare", bare, whole, ""},
		{"upper case", strings.ToUpper(whole), whole, ""},
		{"upper case, bare", strings.ToUpper(bare), whole, ""},
		{"nil", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", ""},
		{"a name", "example", "feb54431-301b-52bb-a6dd-e1e93e81bb9e", ""},
		{"one character", "x", "", "-"},
		{"30 bytes", strings.Repeat("x", 30), "", "-"},
		{"31 bytes", strings.Repeat("x", 31), "", "-"}, // from here on sing-box and mihomo only
		{"32 bytes", strings.Repeat("x", 32), "", "-"},
		{"1 MiB", strings.Repeat("x", 1<<20), "", "-"},
		{"braces", "{" + whole + "}", whole, ""},
		{"urn", "URN:uuid:" + whole, whole, ""},
		{"other scripts", "höhe", "", "-"},
		{"space before", " " + bare[:20], "", "-"},

		{"empty", "", "", "it is empty"},
		{"35 characters", whole[:35], "", "UUID has 35 of 36 characters"},
		{"37 characters", whole + "1", "", "UUID has 37 of 36 characters"},
		{"31 digits", bare[:31], "", "UUID has 31 of 32 characters"},
		{"33 digits", bare + "1", "", "UUID has 33 of 32 characters"},
		{"36 digits", bare + "1234", "", "UUID has 36 of 32 characters"},
		{"digits only", "12345", "", "UUID has 5 of 32 characters"},
		{"hexadecimal name", "cafe", "", "UUID has 4 of 32 characters"},
		{"dashes only", "-----", "", "UUID has 5 of 36 characters"},
		{"one dash", "-", "", "UUID has 1 of 36 characters"},
		{"36 dashes", strings.Repeat("-", 36), "", "dashes stand in the wrong places"},
		{"a dash astray", "b831381-d6324-4d53-ad4f-8cda48b30811", "", "dashes stand in the wrong places"},
		{"32 with dashes", whole[:32], "", "UUID has 32 of 36 characters"},
		{"wrong digit", "g" + whole[1:], "", "not hexadecimal"},
		{"wrong digit in braces", "{g" + whole[1:] + "}", "", "not hexadecimal"},
	} {
		id, err := ParseID(c.in)
		switch {
		case c.words == "-": // a name of which only the version is known
			if err != nil || id[6]>>4 != 5 || id[8]>>6 != 2 {
				t.Errorf("%s: %v, %v", c.name, id.Text(), err)
			}
		case c.out != "":
			if err != nil || id.Text() != c.out {
				t.Errorf("%s: %v, %v", c.name, id.Text(), err)
			}
		case !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), c.words) || id != ID{}:
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.words)
		case len(c.in) > 3 && strings.Contains(err.Error(), c.in):
			t.Errorf("%s: the error shows the text: %v", c.name, err)
		}
	}
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || a[6]>>4 != 4 {
		t.Errorf("%s, %s", a.Text(), b.Text())
	}
	if again, err := ParseID(a.Text()); err != nil || again != a {
		t.Errorf("%s parses to %s, %v", a.Text(), again.Text(), err)
	}
}

// What holds an id never shows it, nor the key made of it, however it comes to
// be printed.
func TestSecretsAreNotShown(t *testing.T) {
	id := testID
	key, alter := id.cmdKey(), id.next()
	s := newTestServer(t, ServerConfig{Users: []User{{ID: id, AlterID: 1, Name: "alice"}}, Now: at(noon.Unix())})
	config := AccountConfig{ID: id, Method: gcm.method}
	_, refused := serve(s, forger{id: id, legacy: id, flip: 60}.wire())
	_, bad := ParseID(id.Text()[:35])
	conn, _ := recording(t, NewAccount(config), nil)
	_, dial := (&Dialer{Client: NewAccount(config), Endpoint: handOver(&recorder{err: errors.New("no")})}).DialStream(t.Context(), destination, []byte("x"))
	in, err := serve(s, forger{id: id, seed: 1}.wire())
	if err != nil || refused == nil || bad == nil || dial == nil {
		t.Fatal(err, refused, bad, dial)
	}
	values := map[string]any{
		"ID": id, "*ID": &id, "[]ID": []ID{id}, "struct": struct{ ID ID }{id}, "unexported": map[string]ID{"id": id},
		"Client": NewAccount(config), "legacy Client": NewAccount(AccountConfig{ID: id, AEADDisabled: true}), "ClientConfig": config,
		"derived Client": NewAccount(AccountConfig{ID: id, AlterID: 1}),
		"Dialer":         Dialer{Client: NewAccount(config)}, "*Dialer": &Dialer{Client: NewAccount(config)},
		"Server": s, "User": User{ID: id, Name: "alice"}, "ServerConfig": ServerConfig{Users: []User{{ID: id}}},
		"refusal": refused, "parse error": bad, "dial error": dial, "Conn": conn, "Incoming": in, "server Conn": in.conn,
	}
	for name, v := range values {
		var text []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "% x", "%o"} {
			text = append(text, fmt.Sprintf(verb, v))
		}
		if p, err := json.Marshal(v); err == nil {
			text = append(text, string(p))
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		text = append(text, log.String())
		for _, secret := range [][]byte{id[:], key[:], alter[:]} {
			for _, form := range forms(secret) {
				for _, s := range text {
					if strings.Contains(strings.ToLower(s), form) {
						t.Errorf("%s shows a secret as %q: %.300s", name, form, s)
					}
				}
			}
		}
	}
}

// forms are the ways by which fmt and JSON print bytes, a few of them each.
func forms(secret []byte) (all []string) {
	part := secret[:6]
	for _, format := range []struct{ verb, between string }{{"%d", " "}, {"%d", ","}, {"%#x", ", "}, {"%02x", " "}, {"%o", " "}, {"%x", " "}} {
		var each []string
		for _, b := range part {
			each = append(each, fmt.Sprintf(format.verb, b))
		}
		all = append(all, strings.Join(each, format.between))
	}
	return append(all, hex.EncodeToString(part), ID(secret).Text(), strings.ToLower(fmt.Sprintf("%q", part[:4])))
}
