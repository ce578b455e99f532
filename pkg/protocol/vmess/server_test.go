package vmess

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

// noon is when most of these tests take place.
var noon = time.Unix(1700000000, 0)

// A clock is one that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// A forger makes requests by hand.
type forger struct {
	id     ID
	legacy ID // not zero: vouches for a legacy request
	at     time.Time
	header requestHeader
	seed   byte // of what is random
	damage func(plain []byte) []byte
	flip   int // byte of the wire that is turned over; 0: none
}

func (f forger) wire() []byte {
	h := f.header
	if h.security == 0 {
		h.security, h.option = SecurityAESGCM, masked
	}
	if h.command == 0 {
		h.command = CommandTCP
	}
	if !h.address.IsValid() && h.command != CommandMux {
		h.address = destination
	}
	if h.key == [16]byte{} {
		copy(h.key[:], pattern(16, uint64(f.seed)))
		copy(h.iv[:], pattern(16, uint64(f.seed)+1000))
	}
	if f.at.IsZero() {
		f.at = noon
	}
	plain := h.append(nil, nil)
	if f.damage != nil {
		plain = f.damage(plain)
	}
	var wire []byte
	if f.legacy != (ID{}) {
		wire = sealLegacy(nil, f.id.cmdKey(), f.legacy, f.at, plain)
	} else {
		id := sealAuthID(authIDCipher(f.id.cmdKey()), f.at, [4]byte{f.seed, 1})
		wire = sealAEAD(nil, f.id.cmdKey(), id, [8]byte{f.seed}, plain)
	}
	if f.flip > 0 {
		wire[f.flip] ^= 0xff
	}
	return wire
}

// resum makes the checksum right again behind a change.
func resum(change func(plain []byte)) func([]byte) []byte {
	return func(plain []byte) []byte {
		change(plain)
		return binary.BigEndian.AppendUint32(plain[:len(plain)-4], fnv1a(plain[:len(plain)-4]))
	}
}

// serve gives a server one request and all the bytes that a refusal reads.
func serve(s *Server, wire []byte) (*Incoming, error) {
	return s.Accept(context.Background(), &recorder{in: io.MultiReader(bytes.NewReader(wire), bytes.NewReader(make([]byte, 4000)))})
}

func TestServerFindsUser(t *testing.T) {
	const users = 20
	var c ServerConfig
	for i := range users {
		c.Users = append(c.Users, User{ID: NewID(), AlterID: i % 3, Name: fmt.Sprint("user ", i)})
	}
	s := newTestServer(t, c)
	for i, u := range c.Users {
		for name, cl := range map[string]*Account{
			"aead":            NewAccount(AccountConfig{ID: u.ID, Method: gcm.method}),
			"legacy, derived": NewAccount(AccountConfig{ID: u.ID, Method: gcm.method, AlterID: u.AlterID}),
			"legacy, main id": NewAccount(AccountConfig{ID: u.ID, Method: gcm.method, AEADDisabled: true}),
		} {
			if want := name != "aead" && (u.AlterID > 0 || name == "legacy, main id"); cl.Legacy() != want {
				t.Errorf("%s: legacy %v", name, cl.Legacy())
			}
			_, r := recording(t, cl, []byte("x"))
			in, err := serve(s, r.writes[0])
			if err != nil || in.User != c.Users[i].Name || in.Legacy != cl.Legacy() {
				t.Errorf("%s of %s: %+v, %v", name, u.Name, in, err)
			}
		}
	}
	_, r := recording(t, NewAccount(AccountConfig{ID: NewID(), Method: gcm.method}), []byte("x"))
	if _, err := serve(s, r.writes[0]); !errors.Is(err, ErrInvalidUser) {
		t.Errorf("a stranger: %v", err)
	}
}

// Derived ids beyond the user's alterId are strangers.
func TestServerAlterIDs(t *testing.T) {
	s := newTestServer(t, ServerConfig{Users: []User{{ID: testID, AlterID: 3}}, Now: at(noon.Unix())})
	for i, id := range testID.alterIDs(5) {
		_, err := serve(s, forger{id: testID, legacy: id, seed: byte(i)}.wire())
		if (err == nil) != (i < 3) {
			t.Errorf("derived id %d: %v", i+1, err)
		}
	}
}

func TestServerWindow(t *testing.T) {
	for _, legacy := range []ID{{}, testID} {
		s := newTestServer(t, ServerConfig{Now: at(noon.Unix())})
		for i, c := range []struct {
			skew int64
			good bool
		}{{0, true}, {1, true}, {-1, true}, {120, true}, {-120, true}, {121, false}, {-121, false}, {3600, false}, {-noon.Unix() - 1, false}, {1 << 60, false}} {
			if legacy != (ID{}) && c.skew == 1<<60 {
				continue
			}
			_, err := serve(s, forger{id: testID, legacy: legacy, at: noon.Add(time.Duration(c.skew) * time.Second), seed: byte(i)}.wire())
			if c.skew == 1<<60 { // a Duration does not hold it
				id := sealAuthID(authIDCipher(testID.cmdKey()), time.Unix(noon.Unix()+c.skew, 0), [4]byte{9})
				_, err = serve(s, append(id[:], make([]byte, 4000)...))
			}
			if (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), "invalid user: Not Found") {
				t.Errorf("legacy %v, %d s off: %v", legacy != ID{}, c.skew, err)
			}
		}
	}
}

// A tunnel may wait for its request: what counts is when that comes.
func TestServerWindowOfWaitingTunnel(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newTestServer(t, ServerConfig{})
			near, far := transporttest.Pipe(1 << 16)
			accepted := make(chan error)
			go func() { _, err := s.Accept(t.Context(), far); accepted <- err }()
			time.Sleep(50 * time.Second)
			ahead := NewAccount(AccountConfig{ID: testID, AEADDisabled: legacy, Method: gcm.method, Now: func() time.Time { return time.Now().Add(100 * time.Second) }})
			_ = dialOver(t, ahead, near, "x")
			_, _ = near.Write(make([]byte, 4000))
			if err := <-accepted; err != nil {
				t.Errorf("legacy %v: %v", legacy, err)
			}
		})
	}
}

func TestServerReplay(t *testing.T) {
	k := &clock{now: noon}
	s := newTestServer(t, ServerConfig{Now: k.Now})
	wire := forger{id: testID, at: noon.Add(120 * time.Second)}.wire()
	if _, err := serve(s, wire); err != nil {
		t.Fatal(err)
	}
	// A stamp that lay 120 s ahead is good for 240 s.
	for _, later := range []int{0, 1, 119, 120, 239, 240} {
		k.set(noon.Add(time.Duration(later) * time.Second))
		if _, err := serve(s, wire); !errors.Is(err, ErrReplayed) || !errors.Is(err, ErrInvalidUser) {
			t.Errorf("%d s later: %v", later, err)
		}
	}
	k.set(noon.Add(241 * time.Second))
	if _, err := serve(s, wire); errors.Is(err, ErrReplayed) || !errors.Is(err, ErrInvalidUser) {
		t.Errorf("out of its window: %v", err)
	}
}

// However late in a generation of what is remembered a request came.
func TestServerReplayLateInMemory(t *testing.T) {
	for _, late := range []int{1, 100, 200, 236, 237, 238, 239, 240, 241} {
		k := &clock{now: noon}
		s := newTestServer(t, ServerConfig{Now: k.Now})
		if _, err := serve(s, forger{id: testID, seed: 1}.wire()); err != nil { // begins it
			t.Fatal(err)
		}
		came := noon.Add(time.Duration(late) * time.Second)
		k.set(came)
		wire := forger{id: testID, at: came.Add(120 * time.Second), seed: 2}.wire()
		if _, err := serve(s, wire); err != nil {
			t.Fatal(err)
		}
		k.set(came.Add(240 * time.Second))
		if _, err := serve(s, wire); !errors.Is(err, ErrReplayed) {
			t.Errorf("%d s after the first request: %v", late, err)
		}
	}
}

func TestServerReplayAcrossClockJump(t *testing.T) {
	k := &clock{now: noon}
	s := newTestServer(t, ServerConfig{Now: k.Now})
	wire := forger{id: testID}.wire()
	if _, err := serve(s, wire); err != nil {
		t.Fatal(err)
	}
	for _, jump := range []int{-100, 50, -119, 119} {
		k.set(noon.Add(time.Duration(jump) * time.Second))
		if _, err := serve(s, wire); !errors.Is(err, ErrReplayed) {
			t.Errorf("after a jump to %+d s: %v", jump, err)
		}
	}
}

// A clock that ran ahead and is set back makes old times good again. What was
// recorded meanwhile, and before, is still a replay; who is new is served.
func TestServerReplayAfterClockSetBack(t *testing.T) {
	for _, ahead := range []time.Duration{5 * time.Minute, time.Hour, 48 * time.Hour} {
		k := &clock{now: noon}
		s := newTestServer(t, ServerConfig{Now: k.Now})
		seed := byte(0)
		request := func(at time.Time) []byte {
			seed++
			k.set(at)
			wire := forger{id: testID, seed: seed, at: at, header: requestHeader{key: [16]byte{seed}, iv: [16]byte{1}}}.wire()
			if _, err := serve(s, wire); err != nil {
				t.Fatalf("ahead %v, an honest request: %v", ahead, err)
			}
			return wire
		}
		before := request(noon)
		var during [][]byte
		for i := range 10 {
			during = append(during, request(noon.Add(ahead+time.Duration(i)*3*time.Minute)))
		}
		request(noon.Add(time.Minute)) // it is set back
		if _, err := serve(s, before); !errors.Is(err, ErrReplayed) {
			t.Errorf("ahead %v, what came before: %v", ahead, err)
		}
		for i, wire := range during {
			k.set(noon.Add(ahead + time.Duration(i)*3*time.Minute))
			if _, err := serve(s, wire); !errors.Is(err, ErrReplayed) {
				t.Errorf("ahead %v, request %d of that time: %v", ahead, i, err)
			}
		}
	}
}

// The same keys again are a replay even under a fresh AuthID: a recorded
// header must not be dressed up anew.
func TestServerDuplicateSession(t *testing.T) {
	k := &clock{now: noon}
	s := newTestServer(t, ServerConfig{Now: k.Now, Users: []User{{ID: testID}, {ID: otherID}}})
	h := requestHeader{key: [16]byte{1}, iv: [16]byte{2}}
	if _, err := serve(s, forger{id: testID, seed: 1, header: h}.wire()); err != nil {
		t.Fatal(err)
	}
	_, err := serve(s, forger{id: testID, seed: 2, header: h}.wire())
	if !errors.Is(err, ErrDuplicateSession) || !strings.HasPrefix(err.Error(), "duplicated session id, possibly under replay attack") {
		t.Errorf("the same session: %v", err)
	}
	if strings.Contains(err.Error(), "tainted") {
		t.Errorf("an AEAD request tainted a legacy credential: %v", err)
	}
	if _, err := serve(s, forger{id: otherID, seed: 3, header: h}.wire()); err != nil {
		t.Errorf("another user's: %v", err)
	}
	k.set(noon.Add(179 * time.Second))
	if _, err := serve(s, forger{id: testID, seed: 4, header: h, at: k.now}.wire()); !errors.Is(err, ErrDuplicateSession) {
		t.Errorf("179 s later: %v", err)
	}
}

func TestServerAEADForced(t *testing.T) {
	s := newTestServer(t, ServerConfig{AEADForced: true, Now: at(noon.Unix())})
	_, err := serve(s, forger{id: testID, legacy: testID}.wire())
	var refused *RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, ErrAEADRequired) || refused.Tainted {
		t.Errorf("a known legacy user: %v", err)
	}
	if want := "invalid user: VMessAEAD is enforced and a non VMessAEAD connection is received. "; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a known legacy user: %q, want it to begin %q", err, want)
	}
	if _, err = serve(s, forger{id: otherID, legacy: otherID}.wire()); err == nil || err.Error() != "invalid user: Not Found" {
		t.Errorf("an unknown legacy user: %v", err)
	}
	if _, err = serve(s, forger{id: testID}.wire()); err != nil {
		t.Errorf("AEAD: %v", err)
	}
}

func TestServerTaint(t *testing.T) {
	users := []User{{ID: testID, AlterID: 1}, {ID: otherID}}
	good := forger{id: testID, legacy: testID, seed: 1}
	for name, offence := range map[string]struct {
		first, second forger // second, if any, is what offends
		text          string
	}{
		"corrupted": {first: forger{id: testID, legacy: testID, seed: 9, flip: 60}, text: "invalid auth, legacy userHash tainted"},
		"replay":    {first: good, second: good, text: "duplicated session id, possibly under replay attack, userHash tainted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, ServerConfig{Users: users, Now: at(noon.Unix())})
			_, err := serve(s, offence.first.wire())
			if offence.second.id != (ID{}) {
				if err != nil {
					t.Fatal(err)
				}
				_, err = serve(s, offence.second.wire())
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !refused.Tainted || !strings.HasSuffix(err.Error(), offence.text) {
				t.Errorf("the offence: %v", err)
			}
			for seed := range byte(3) {
				_, err = serve(s, forger{id: testID, legacy: testID, seed: 20 + seed}.wire())
				if !errors.Is(err, ErrTainted) || !errors.Is(err, ErrInvalidUser) || errors.As(err, &refused) && refused.Tainted {
					t.Errorf("the burnt credential: %v", err)
				}
			}
			for i, f := range []forger{
				{id: testID, legacy: testID, at: noon.Add(time.Second)},
				{id: testID, legacy: testID, at: noon.Add(-time.Second)},
				{id: testID, legacy: testID.next()},
				{id: otherID, legacy: otherID},
				{id: testID},
			} {
				f.seed = byte(30 + i)
				if _, err := serve(s, f.wire()); err != nil {
					t.Errorf("untouched credential %d: %v", i, err)
				}
			}
		})
	}
}

// A whole request for something that is not served is no attack: the user's
// other requests of that second share its credential.
func TestServerTaintNotForUnservable(t *testing.T) {
	for name, f := range map[string]forger{
		"command": {damage: resum(func(p []byte) { p[37] = 9 })},
		"address": {damage: resum(func(p []byte) { p[43] = '/' })},
		"version": {damage: resum(func(p []byte) { p[0] = 2 })},
	} {
		s := newTestServer(t, ServerConfig{Now: at(noon.Unix())})
		f.id, f.legacy, f.seed = testID, testID, 1
		var refused *RefusedError
		if _, err := serve(s, f.wire()); !errors.As(err, &refused) || refused.Tainted {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := serve(s, forger{id: testID, legacy: testID, seed: 2}.wire()); err != nil {
			t.Errorf("%s: then %v", name, err)
		}
	}
}

func TestLegacyClockJumps(t *testing.T) {
	k := &clock{now: noon}
	s := newTestServer(t, ServerConfig{Now: k.Now})
	seed := byte(0)
	try := func(off int) error {
		seed++
		_, err := serve(s, forger{id: testID, legacy: testID, at: k.now.Add(time.Duration(off) * time.Second), seed: seed}.wire())
		return err
	}
	if _, err := serve(s, forger{id: testID, legacy: testID, flip: 60, seed: 99}.wire()); err == nil {
		t.Fatal("a corrupted request was accepted")
	}
	for _, jump := range []int{0, 1, -1, 10, -10, 100, -100, 300, -300, 86400, -86400, 400 * 86400, 0} {
		k.set(noon.Add(time.Duration(jump) * time.Second))
		s.advanceLegacy()
		for _, off := range []int{-120, -119, 119, 120} {
			if err := try(off); err != nil {
				t.Errorf("clock at %+d, request at %+d: %v", jump, off, err)
			}
		}
		for _, off := range []int{-121, 121} {
			if err := try(off); err == nil {
				t.Errorf("clock at %+d, request at %+d: accepted", jump, off)
			}
		}
		if n := len(s.roster.Load().legacy.hashes); n != int(legacyWindow)+2*legacySlack || len(s.roster.Load().legacy.second) != n {
			t.Fatalf("clock at %+d: a table of %d hashes, %d seconds", jump, n, len(s.roster.Load().legacy.second))
		}
	}
}

// A credential stays burnt while the clock wavers about the edge of its
// window.
func TestTaintOutlastsClockJumps(t *testing.T) {
	k := &clock{now: noon}
	s := newTestServer(t, ServerConfig{Now: k.Now})
	burnt := forger{id: testID, legacy: testID, flip: 60, seed: 99}
	_, _ = serve(s, burnt.wire())
	burnt.flip = 0
	for i, jump := range []int{121, 0, -121, 0, 240, 100} {
		k.set(noon.Add(time.Duration(jump) * time.Second))
		s.advanceLegacy()
		burnt.seed = byte(i)
		if _, err := serve(s, burnt.wire()); err == nil || (jump > -121 && jump < 121) != errors.Is(err, ErrTainted) {
			t.Errorf("clock at %+d: %v", jump, err)
		}
	}
	k.set(noon.Add(time.Hour))
	s.advanceLegacy()
	if n := len(s.taints.burnt); n != 0 {
		t.Errorf("%d taints are kept for ever", n)
	}
}

func TestDrainCount(t *testing.T) {
	for _, c := range []struct {
		id        ID
		low, high int
	}{ // measured on V2Ray
		{testID, 1745, 1763},
		{mustID("5783a3e7-e373-51cd-8642-c83782b807c5"), 426, 479},
	} {
		d := newDrainCount([]User{{ID: c.id}})
		if low, high := minRefused+d.base, minRefused+d.base+d.spread-1; low != c.low || high != c.high {
			t.Errorf("%d to %d, want %d to %d", low, high, c.low, c.high)
		}
		for range 1000 {
			if n := d.draw(); n < c.low || n > c.high {
				t.Fatalf("drew %d", n)
			}
		}
	}
	for range 200 {
		if d := newDrainCount([]User{{ID: NewID()}, {ID: NewID()}}); d.draw() < 54 || d.base+minRefused+d.spread-1 > 3382 {
			t.Errorf("%+v", d)
		}
	}
}

// The longest header fits into an ample count, so that a request whose sealed
// header was damaged, which is judged when it is whole, is closed after the
// count like any other; of an id with a smaller count it can be told.
func TestAmpleRefusal(t *testing.T) {
	long, err := netaddr.FromHost(strings.Repeat(strings.Repeat("a", 50)+".", 5), 443)
	if err != nil {
		t.Fatal(err)
	}
	padded := func(plain []byte) []byte { return append(plain, make([]byte, 15)...) }
	for _, ample := range []bool{true, false} {
		var id ID
		var d drainCount
		for least := 256; ample && least < SafeDrain || !ample && least+d.spread > 115; {
			id = NewID()
			least, d = MinDrain([]User{{ID: id}}), newDrainCount([]User{{ID: id}})
		}
		for _, dst := range []netaddr.Addr{destination, long} {
			wire := forger{id: id, header: requestHeader{address: dst}, damage: padded}.wire()
			wire[len(wire)-1] ^= 1
			s := newTestServer(t, ServerConfig{Users: []User{{ID: id}}, AEADForced: true, Now: at(noon.Unix())})
			p := &prober{opening: wire[:probeSize]}
			if _, err := s.Accept(t.Context(), p); !errors.Is(err, ErrBadHeader) {
				t.Fatal(err)
			}
			if told := p.taken > minRefused+d.base+d.spread-1; told == ample || len(wire) > SafeDrain {
				t.Errorf("of %d bytes the server took %d, and %d to %d of others", len(wire), p.taken, minRefused+d.base, minRefused+d.base+d.spread-1)
			}
		}
	}
}

// refusals returns a request for each reason to refuse, with a server that is
// ready to refuse it. The servers have the same users, so the same secret.
func refusals(t testing.TB) (all []refusal) {
	users := []User{{ID: testID, AlterID: 1, Name: "alice"}}
	add := func(name string, want error, forced bool, before []forger, wire []byte) {
		s := newTestServer(t, ServerConfig{Users: users, AEADForced: forced, Now: at(noon.Unix())})
		for _, f := range before {
			_, _ = serve(s, f.wire())
		}
		all = append(all, refusal{name, s, wire, want})
	}
	aead, legacy := forger{id: testID, seed: 1}, forger{id: testID, legacy: testID, seed: 1}
	with := func(f forger, change func(*forger)) []byte { change(&f); return f.wire() }
	add("noise", ErrInvalidUser, false, nil, pattern(100, 3))
	add("the least noise", ErrInvalidUser, true, nil, pattern(16, 4))
	add("http", ErrInvalidUser, true, nil, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	add("unknown id", ErrInvalidUser, false, nil, with(aead, func(f *forger) { f.id = otherID }))
	add("unknown legacy id", ErrInvalidUser, false, nil, with(legacy, func(f *forger) { f.id, f.legacy = otherID, otherID }))
	add("clock ahead", ErrInvalidUser, false, nil, with(aead, func(f *forger) { f.at = noon.Add(121 * time.Second) }))
	add("clock behind", ErrInvalidUser, false, nil, with(legacy, func(f *forger) { f.at = noon.Add(-121 * time.Second) }))
	add("replay", ErrReplayed, true, []forger{aead}, aead.wire())
	add("duplicate session", ErrDuplicateSession, true, []forger{{id: testID, seed: 1, header: requestHeader{key: [16]byte{1}}}}, forger{id: testID, seed: 2, header: requestHeader{key: [16]byte{1}}}.wire())
	add("length flipped", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.flip = 20 }))
	add("nonce flipped", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.flip = 38 }))
	add("header flipped", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.flip = 60 }))
	add("header cut", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.damage = func(p []byte) []byte { return p[:30] } }))
	add("no header", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.damage = func(p []byte) []byte { return nil } }))
	for name, change := range map[string]func(p []byte){
		"version": func(p []byte) { p[0] = 2 }, "command": func(p []byte) { p[37] = 4 }, "security": func(p []byte) { p[35] = 6 },
		"padding without masking": func(p []byte) { p[34] = byte(OptionChunked | OptionPadding) },
		"address type":            func(p []byte) { p[40] = 7 }, "name": func(p []byte) { p[45] = ' ' },
		"datagrams without chunks": func(p []byte) { p[34], p[35], p[37] = 0, p[35]&0xf0|byte(SecurityNone), byte(CommandUDP) },
	} {
		add(name, ErrBadHeader, true, nil, with(aead, func(f *forger) { f.damage = resum(change) }))
		add("legacy "+name, ErrBadHeader, false, nil, with(legacy, func(f *forger) { f.damage = resum(change) }))
	}
	add("checksum", ErrBadHeader, true, nil, with(aead, func(f *forger) { f.damage = func(p []byte) []byte { p[len(p)-1] ^= 1; return p } }))
	add("legacy corrupted", ErrBadHeader, false, nil, with(legacy, func(f *forger) { f.flip = 60 }))
	add("legacy replay", ErrDuplicateSession, false, []forger{legacy}, legacy.wire())
	add("legacy tainted", ErrTainted, false, []forger{{id: testID, legacy: testID, flip: 60}}, legacy.wire())
	add("legacy where AEAD is forced", ErrAEADRequired, true, nil, legacy.wire())
	return all
}

type refusal struct {
	name   string
	server *Server
	wire   []byte
	want   error
}

// Whatever the reason, a refused peer sees the same: nothing, until it has
// sent a number of bytes that only the users' ids tell.
func TestRefusalsAreAlike(t *testing.T) {
	const low, high = 1745, 1763 // testID's
	for _, r := range refusals(t) {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told error
				r.server.refused = func(_ transport.StreamConn, err error) { told = err }
				near, far := transporttest.Pipe(1 << 16)
				refused := make(chan error, 1)
				go func() {
					_, err := r.server.Accept(t.Context(), far)
					refused <- err
				}()
				_, _ = near.Write(r.wire)
				synctest.Wait()
				if !errors.Is(told, r.want) {
					t.Errorf("the log was told %v, want %v", told, r.want)
				}
				for sent := len(r.wire); sent < low-1; sent++ { // byte by byte
					_, _ = near.Write([]byte{0})
				}
				time.Sleep(30 * time.Second)
				select {
				case err := <-refused:
					t.Fatalf("closed before %d bytes: %v", low, err)
				default:
				}
				_, _ = near.Write(make([]byte, high-low+1))
				if err := <-refused; err != told {
					t.Errorf("returned %v, told %v", err, told)
				}
				if p, err := io.ReadAll(near); len(p) != 0 || err != nil {
					t.Errorf("the peer read %x, %v", p, err)
				}
			})
		})
	}
}

func TestRefusalsEndWithPatience(t *testing.T) {
	for _, patience := range []time.Duration{0, 5 * time.Second} {
		for _, r := range append(refusals(t), refusal{name: "silence", want: ErrNoRequest}, refusal{name: "one byte", wire: []byte{1}, want: ErrNoRequest},
			refusal{name: "15 bytes", wire: pattern(15, 1), want: ErrNoRequest}, refusal{name: "cut request", wire: forger{id: testID}.wire()[:50], want: ErrNoRequest},
			refusal{name: "cut legacy request", wire: forger{id: testID, legacy: testID}.wire()[:50], want: ErrNoRequest}) {
			if r.server == nil {
				r.server = newTestServer(t, ServerConfig{Now: at(noon.Unix())})
			}
			want := 60 * time.Second
			if patience != 0 {
				want, r.server.patience = patience, patience
			}
			synctest.Test(t, func(t *testing.T) {
				near, far := transporttest.Pipe(1 << 16)
				begin := time.Now()
				go func() {
					_, _ = near.Write(r.wire)
					time.Sleep(time.Second)
					if len(r.wire) > 16 {
						_, _ = near.Write([]byte{1}) // life does not prolong it
					}
				}()
				in, err := r.server.Accept(t.Context(), far)
				if in != nil || !errors.Is(err, r.want) {
					t.Errorf("%s: %+v, %v", r.name, in, err)
				}
				if took := time.Since(begin); took != want {
					t.Errorf("%s: closed after %v, want %v", r.name, took, want)
				}
				if p, err := io.ReadAll(near); len(p) != 0 || err != nil {
					t.Errorf("%s: the peer read %x, %v", r.name, p, err)
				}
			})
		}
	}
}

// A peer that ends is not kept.
func TestRefusalsEndWithPeer(t *testing.T) {
	for _, r := range refusals(t) {
		near, far := transporttest.Pipe(1 << 16)
		_, _ = near.Write(r.wire)
		_ = near.CloseWrite()
		if _, err := r.server.Accept(t.Context(), far); !errors.Is(err, r.want) {
			t.Errorf("%s: %v", r.name, err)
		}
		if p, err := io.ReadAll(near); len(p) != 0 || err != nil {
			t.Errorf("%s: the peer read %x, %v", r.name, p, err)
		}
	}
	for n := range 16 {
		near, far := transporttest.Pipe(1 << 16)
		_, _ = near.Write(make([]byte, n))
		_ = near.CloseWrite()
		if _, err := newTestServer(t, ServerConfig{}).Accept(t.Context(), far); !errors.Is(err, ErrNoRequest) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestAcceptCancelled(t *testing.T) {
	for name, wire := range map[string][]byte{"silent": nil, "cut": make([]byte, 10), "refused": make([]byte, 100)} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			near, far := transporttest.Pipe(1 << 16)
			_, _ = near.Write(wire)
			done := make(chan error)
			go func() { _, err := newTestServer(t, ServerConfig{}).Accept(ctx, far); done <- err }()
			synctest.Wait()
			begin := time.Now()
			cancel()
			if err := <-done; err == nil || time.Since(begin) != 0 {
				t.Errorf("%s: %v after %v", name, err, time.Since(begin))
			}
			if p, err := io.ReadAll(near); len(p) != 0 || err != nil {
				t.Errorf("%s: the peer read %x, %v", name, p, err)
			}
		})
	}
}

// What has not authenticated costs next to nothing, however long it stays.
func TestUnauthenticatedHoldNoBuffer(t *testing.T) {
	const peers = 100
	always := func(wire []byte) func(byte) []byte { return func(byte) []byte { return wire } }
	long := func(plain []byte) []byte { return append(plain, make([]byte, 2000)...) }
	for name, wireOf := range map[string]func(peer byte) []byte{
		"silent": always(nil), "short": always(make([]byte, 10)),
		"refused": always(make([]byte, 100)), "refused, chatty": always(make([]byte, 600)),
		"cut request": func(peer byte) []byte { return forger{id: testID, seed: peer}.wire()[:60] },
		"damaged header": func(peer byte) []byte {
			return forger{id: testID, seed: peer, damage: long, flip: 1500}.wire()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := newTestServer(t, ServerConfig{Now: at(noon.Unix())})
			s.drain = drainCount{base: 3000, spread: 1}
			var (
				all    sync.WaitGroup
				taken  sync.WaitGroup
				before runtime.MemStats
				after  runtime.MemStats
			)
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range peers {
				near, far := transporttest.Pipe(1 << 16)
				wire := wireOf(byte(i))
				_, _ = near.Write(wire)
				taken.Add(1)
				all.Go(func() { _, _ = s.Accept(ctx, &drained{Conn: far, left: len(wire), done: taken.Done}) })
			}
			taken.Wait()
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&after)
			cancel()
			all.Wait()
			if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / peers; each > 12<<10 {
				t.Errorf("each costs %d bytes", each)
			}
		})
	}
}

// drained tells when all that was sent to it was read and more is waited for.
type drained struct {
	*transporttest.Conn
	left int
	once sync.Once
	done func()
}

func (d *drained) WaitRead() error {
	if d.left == 0 {
		d.once.Do(d.done)
	}
	return d.Conn.WaitRead()
}

func (d *drained) Read(p []byte) (int, error) {
	if d.left == 0 {
		d.once.Do(d.done)
	}
	n, err := d.Conn.Read(p)
	d.left -= n
	return n, err
}

func TestMemory(t *testing.T) {
	const keep = 100 * time.Second
	m := newReplayFilter[int](keep, 2, 3)
	for _, step := range []struct {
		after int // seconds
		key   int
		isNew bool
	}{
		{0, 1, true},
		{0, 1, false},
		{99, 1, false},
		{99, 2, true},
		{99, 3, true},
		{99, 4, false}, // full: unknown keys are not let through
		{100, 4, true}, // a new generation
		{199, 1, false},
		{199, 5, true},
		{200, 3, false}, // twice as long as asked for, and still there
		{200, 6, true},  // a new generation
		{200, 1, true},  // of the one before the last
		{200, 4, false},
		{9000, 4, false}, // few are remembered for however long
		{9000, 6, false},
		{9000, 7, true},
		{-9000, 7, false},
		{-9000, 8, true}, // the clock was set back
		{-9000, 9, true},
		{-9000, 10, false},
		{-8900, 10, true}, // generations go on from there
		{-8900, 7, false},
	} {
		if got := m.add(step.key, noon.Add(time.Duration(step.after)*time.Second)); got != step.isNew {
			t.Errorf("%+d s: key %d new %v, want %v", step.after, step.key, got, step.isNew)
		}
		if len(m.now) > 3 || len(m.old) > 3 {
			t.Errorf("%d and %d keys, more than the limit", len(m.now), len(m.old))
		}
	}
}

func TestNewServerErrors(t *testing.T) {
	if _, err := NewServer(ServerConfig{}); !errors.Is(err, ErrNoUsers) {
		t.Errorf("no users: %v", err)
	}
	for _, c := range []struct {
		name  string
		users []User
		want  error // nil: any
		good  bool
	}{
		{"same id", []User{{ID: testID, Name: "a"}, {ID: otherID}, {ID: testID, Name: "b"}}, ErrSameID, false},
		{"most alter ids", []User{{ID: testID, AlterID: maxLegacyIDs - 1}}, nil, true},
		{"many alter ids", []User{{ID: testID, AlterID: maxLegacyIDs}}, ErrManyAlterIDs, false},
		{"many alter ids in all", []User{{ID: testID, AlterID: maxLegacyIDs / 2}, {ID: otherID, AlterID: maxLegacyIDs / 2}}, ErrManyAlterIDs, false},
		{"alter ids that overflow", []User{{ID: testID, AlterID: math.MaxInt}, {ID: otherID, AlterID: math.MaxInt}}, ErrManyAlterIDs, false},
		{"negative", []User{{ID: testID, AlterID: -1}}, nil, false},
	} {
		s, err := NewServer(ServerConfig{Users: c.users})
		if (err == nil) != c.good || (s != nil) != c.good || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The configuration's users may change behind the server's back.
func TestNewServerCopiesUsers(t *testing.T) {
	users := []User{{ID: testID, Name: "alice"}}
	s := newTestServer(t, ServerConfig{Users: users, Now: at(noon.Unix())})
	users[0] = User{ID: otherID, Name: "mallory"}
	if in, err := serve(s, forger{id: testID}.wire()); err != nil || in.User != "alice" {
		t.Errorf("%+v, %v", in, err)
	}
}

func TestServerCommands(t *testing.T) {
	s := newTestServer(t, ServerConfig{Now: at(noon.Unix())})
	for i, h := range []requestHeader{
		{command: CommandTCP, address: mustAddr("1.2.3.4:5")},
		{command: CommandTCP, address: mustAddr("[2001:db8::1]:65535")},
		{command: CommandTCP, address: mustAddr(strings.Repeat("a", 255) + ":1")},
		{command: CommandUDP, address: mustAddr("dns.example:53")},
		{command: CommandMux},
	} {
		for _, legacy := range []ID{{}, testID} {
			seed := byte(2 * i)
			if legacy != (ID{}) {
				seed++
			}
			in, err := serve(s, forger{id: testID, legacy: legacy, at: noon.Add(time.Duration(i) * time.Second), header: h, seed: seed}.wire())
			if err != nil || in.Command != h.command || in.Destination != h.address {
				t.Errorf("%d to %q: %+v, %v", h.command, h.address, in, err)
			}
		}
	}
}

// Users come and go while the server runs; what was remembered against replays
// stays remembered.
func TestServerSetUsers(t *testing.T) {
	s := newTestServer(t, ServerConfig{Now: at(noon.Unix())})
	first := forger{id: testID, seed: 1}.wire()
	if _, err := serve(s, first); err != nil {
		t.Fatal(err)
	}
	burnt := forger{id: testID, legacy: testID, seed: 2}
	damaged := burnt
	damaged.flip = 60
	if _, err := serve(s, damaged.wire()); err == nil {
		t.Fatal("a corrupted request was accepted")
	}
	if err := s.SetUsers([]User{{ID: otherID}}); err != nil {
		t.Fatal(err)
	}
	if _, err := serve(s, forger{id: testID, seed: 3}.wire()); !errors.Is(err, ErrInvalidUser) {
		t.Errorf("one who was removed: %v", err)
	}
	if _, err := serve(s, forger{id: otherID, seed: 4}.wire()); err != nil {
		t.Errorf("one who was added: %v", err)
	}
	if err := s.SetUsers(nil); !errors.Is(err, ErrNoUsers) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := serve(s, forger{id: otherID, seed: 5}.wire()); err != nil {
		t.Errorf("after a mistake: %v", err)
	}
	if err := s.SetUsers([]User{{ID: testID}, {ID: otherID}}); err != nil {
		t.Fatal(err)
	}
	if _, err := serve(s, first); !errors.Is(err, ErrReplayed) {
		t.Errorf("a replay after all that: %v", err)
	}
	if _, err := serve(s, burnt.wire()); !errors.Is(err, ErrTainted) {
		t.Errorf("a burnt credential after all that: %v", err)
	}
}

// What a request burns while the users change stays burnt.
func TestTaintDuringSetUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users := []User{{ID: testID, Name: "alice"}}
		s := newTestServer(t, ServerConfig{Users: users, Now: at(noon.Unix())})
		near, far := transporttest.Pipe(1 << 16)
		wire := forger{id: testID, legacy: testID, flip: 60, seed: 99}.wire()
		done := make(chan error, 1)
		go func() { _, err := s.Accept(context.Background(), far); done <- err }()
		_, _ = near.Write(wire[:40]) // up to within the header
		synctest.Wait()
		if err := s.SetUsers(append(users, User{ID: otherID})); err != nil {
			t.Fatal(err)
		}
		_, _ = near.Write(wire[40:])
		_ = near.CloseWrite()
		var refused *RefusedError
		if err := <-done; !errors.As(err, &refused) || !refused.Tainted {
			t.Fatalf("the offence: %v", err)
		}
		if _, err := serve(s, forger{id: testID, legacy: testID, seed: 1}.wire()); !errors.Is(err, ErrTainted) {
			t.Errorf("the burnt credential: %v", err)
		}
	})
}

// Legacy requests are served after any quiet, and after the clock was set.
func TestLegacyAfterQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var skew atomic.Int64
		s := newTestServer(t, ServerConfig{Now: func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }})
		for i, quiet := range []time.Duration{0, time.Second, time.Minute, time.Hour} {
			time.Sleep(quiet)
			wire := forger{id: testID, legacy: testID, at: s.now(), seed: byte(i)}.wire()
			if _, err := serve(s, wire); err != nil {
				t.Errorf("after %v: %v", quiet, err)
			}
		}
		skew.Store(-int64(time.Hour))
		time.Sleep(2 * time.Second)
		if _, err := serve(s, forger{id: testID, legacy: testID, at: s.now(), seed: 9}.wire()); err != nil {
			t.Errorf("after the clock was set: %v", err)
		}
	})
}
