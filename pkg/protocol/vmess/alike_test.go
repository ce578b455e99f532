package vmess

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"vmess-local/pkg/transport"
)

// A prober is a carrier that brings an opening and then zeros, each byte by
// itself, and notes how many bytes were taken from it, and when the server
// took the last one, decided and closed. There is no goroutine and no socket in it, so that the
// times are the server's own.
type prober struct {
	net.Conn // nil: what is not below must not be called
	opening  []byte
	taken    int
	answered bool
	began    time.Time
	decided  time.Time
	drained  time.Time // when it was read on from
	last     time.Time
	closed   time.Time
}

func (p *prober) Read(b []byte) (n int, _ error) {
	if p.opening != nil {
		n, p.opening = copy(b, p.opening), nil
		p.taken = n
		p.began = time.Now()
		return n, nil
	}
	b[0] = 0
	p.taken++
	p.last = time.Now()
	if p.drained.IsZero() {
		p.drained = p.last
	}
	return 1, nil
}

func (p *prober) Write(b []byte) (int, error)     { p.answered = true; return len(b), nil }
func (p *prober) CloseWrite() error               { p.answered = true; return nil }
func (p *prober) SetReadDeadline(time.Time) error { return nil }

func (p *prober) Close() error {
	if p.closed.IsZero() {
		p.closed = time.Now()
	}
	return nil
}

// probeSize is the length of all these openings, the least that lets a server
// judge each: the AuthID, the sealed length and the nonce.
const probeSize = authIDSize + sealedLenSize + nonceSize

// A cause is one reason to refuse. Its openings differ in all that may.
type cause struct {
	name string
	want error
	next func() []byte
}

func causes(dice *rand.Rand, replayed []byte) []cause {
	noisy := func(hash [16]byte) []byte {
		p := append(make([]byte, 0, probeSize), hash[:]...)
		for len(p) < probeSize {
			p = append(p, byte(dice.Uint32()))
		}
		return p
	}
	stamp := func(id ID, at time.Time) [16]byte {
		n := dice.Uint32()
		return sealAuthID(authIDCipher(id.cmdKey()), at, [4]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	}
	stamped := func(id ID, at time.Time) []byte { return noisy(stamp(id, at)) }
	header := requestHeader{security: SecurityAESGCM, option: masked, command: CommandTCP, address: destination}
	plain := header.append(nil, nil)
	return []cause{
		{"unknown user", ErrInvalidUser, func() []byte { return stamped(otherID, noon) }},
		{"wrong clock", ErrInvalidUser, func() []byte { return stamped(testID, noon.Add(TimeWindow+time.Second)) }},
		{"replay", ErrReplayed, func() []byte { return replayed[:probeSize] }},
		{"corrupted header", ErrBadHeader, func() []byte { return stamped(testID, noon) }},
		// Not judged before it is whole, unlike the others: zeros follow.
		{"damaged sealed header", ErrBadHeader, func() []byte {
			return sealAEAD(nil, testID.cmdKey(), stamp(testID, noon), [8]byte{byte(dice.Uint32())}, plain)[:probeSize]
		}},
		{"MD5 where AEAD is forced", ErrInvalidUser, func() []byte {
			at := noon.Add(time.Duration(dice.IntN(20)) * time.Second)
			return noisy([16]byte(forger{id: testID, legacy: testID, at: at}.wire()))
		}},
	}
}

// A sample is what was seen of the refusals of one cause.
type sample struct {
	bytes    []float64 // taken until the server closed
	deciding []float64 // from the opening to the decision, in ns
	closing  []float64 // from the last byte to the close, in whole µs
}

// probe has a server refuse each cause n times, the causes by turns, in
// any order, so that whatever else the machine does falls on all of them alike.
func probe(t *testing.T, dice *rand.Rand, s *Server, all []cause, n int) []sample {
	t.Helper()
	seen := make([]sample, len(all))
	var told error
	s.refused = func(c transport.StreamConn, err error) {
		c.(*prober).decided, told = time.Now(), err
	}
	for range n {
		for _, i := range dice.Perm(len(all)) {
			c := all[i]
			p := &prober{opening: c.next()}
			if _, err := s.Accept(context.Background(), p); !errors.Is(err, c.want) || err != told {
				t.Fatalf("%s: %v, want %v", c.name, err, c.want)
			}
			if p.answered || p.closed.IsZero() {
				t.Fatalf("%s: answered %v, closed %v", c.name, p.answered, p.closed)
			}
			seen[i].bytes = append(seen[i].bytes, float64(p.taken))
			seen[i].deciding = append(seen[i].deciding, float64(p.decided.Sub(p.began)))
			seen[i].closing = append(seen[i].closing, float64(p.closed.Sub(p.last).Microseconds()))
		}
	}
	return seen
}

const (
	// alike is the p below which two samples are told apart. As equal ones are
	// too, once in a hundred, a pair is only different that is so in each of
	// alikeRounds rounds of new samples.
	alike       = 0.01
	alikeRounds = 4
	// decisionApart is the most by which the medians of the decision's time
	// may differ: what opening a header costs beyond looking up a user, with
	// room for a slow machine; ten times as much under the race detector.
	decisionApart = 250 * time.Microsecond
)

// TestRefusalsCannotBeToldApart shows that 2,000 refusals of each cause look
// alike to who sees the wire: not a byte comes back, the number of bytes that
// is taken until the close has one distribution whatever the cause was
// (two-sample Kolmogorov-Smirnov), and so has the time from the byte that
// makes it full to the close. The decision is before that and shows nothing by
// itself. It takes some microseconds longer where there is a header to open,
// which only who sends all bytes in one go has within the time to the close:
// that is measured, and bounded by decisionApart.
func TestRefusalsCannotBeToldApart(t *testing.T) {
	n, apart := 2000, decisionApart
	if raceEnabled {
		n, apart = 100, 10*apart
	}
	dice := rand.New(rand.NewPCG(1, 2))
	s := newTestServer(t, ServerConfig{Users: []User{{ID: testID}}, AEADForced: true, Now: at(noon.Unix())})
	replayed := forger{id: testID}.wire()
	if _, err := serve(s, replayed); err != nil {
		t.Fatal(err)
	}
	all := causes(dice, replayed)
	_ = probe(t, dice, s, all, 20) // warms all up

	told := map[string]int{}
	for round := range alikeRounds {
		seen := probe(t, dice, s, all, n)
		medians := make([]time.Duration, len(all))
		for i := range all {
			medians[i] = time.Duration(median(seen[i].deciding))
			if round == 0 {
				t.Logf("%-24s decided in %v, closed after %.0f bytes (medians of %d)", all[i].name, medians[i], median(seen[i].bytes), n)
			}
		}
		if d := slices.Max(medians) - slices.Min(medians); d > apart {
			told["the decision's time"]++
		}
		for i := range all {
			for j := range i {
				pair := all[j].name + ", " + all[i].name
				if p := kolmogorovSmirnov(seen[i].bytes, seen[j].bytes); p <= alike {
					told[fmt.Sprintf("%s: bytes", pair)]++
				}
				if p := kolmogorovSmirnov(seen[i].closing, seen[j].closing); p <= alike {
					told[fmt.Sprintf("%s: time from the last byte to the close", pair)]++
				}
			}
		}
		if !slices.Contains(slices.Collect(maps.Values(told)), round+1) {
			break // nothing was different in every round
		}
	}
	for what, times := range told {
		if times == alikeRounds {
			t.Errorf("told apart in each of %d rounds by %s", times, what)
		}
	}
}

// TestFirstRefusalAfterQuiet shows that nothing is made up for when the first
// request comes after a while: what is no user's is judged as fast as a replay,
// and costs as little memory, whether legacy requests are served or not.
func TestFirstRefusalAfterQuiet(t *testing.T) {
	rounds, apart := 15, decisionApart
	if raceEnabled {
		rounds, apart = 5, 10*apart
	}
	// A busy computer may tell them apart once; the code does so every time.
	for attempt := 1; ; attempt++ {
		different := firstRefusals(t, rounds, apart)
		if len(different) == 0 {
			return
		}
		if attempt == alikeRounds {
			t.Errorf("in each of %d attempts: %s", attempt, strings.Join(different, "; "))
			return
		}
	}
}

// firstRefusals returns where noise and a replay are decided more than apart from
// each other, by the medians of so many rounds.
func firstRefusals(t *testing.T, rounds int, apart time.Duration) (different []string) {
	users := []User{{ID: testID}}
	for range 99 {
		users = append(users, User{ID: NewID(), AlterID: 1})
	}
	for _, forced := range []bool{true, false} {
		took := map[string][]float64{}
		for range rounds {
			for _, kind := range []string{"replay", "noise"} {
				k := &clock{now: noon}
				s := newTestServer(t, ServerConfig{Users: users, AEADForced: forced, Now: k.Now})
				wire := forger{id: testID}.wire()
				if _, err := serve(s, wire); err != nil {
					t.Fatal(err)
				}
				k.set(noon.Add(100 * time.Second))
				if !forced {
					s.advanceLegacy() // as its timer does
				}
				if kind == "noise" {
					wire = pattern(probeSize, 7)
				}
				p := &prober{opening: wire[:probeSize]}
				var before, after runtime.MemStats
				s.refused = func(transport.StreamConn, error) {}
				runtime.ReadMemStats(&before)
				if _, err := s.Accept(context.Background(), p); !errors.Is(err, ErrInvalidUser) {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
					different = append(different, fmt.Sprintf("forced %v, %s: %d bytes were allocated", forced, kind, n)) // or by another server's timer
				}
				took[kind] = append(took[kind], float64(p.drained.Sub(p.began)))
			}
		}
		replay, noise := time.Duration(median(took["replay"])), time.Duration(median(took["noise"]))
		t.Logf("forced %v: a replay decided in %v, noise in %v", forced, replay, noise)
		if d := (noise - replay).Abs(); d > apart {
			different = append(different, fmt.Sprintf("forced %v: a replay is decided in %v, noise in %v", forced, replay, noise))
		}
	}
	return different
}

// A user who sends MD5 where AEAD is forced is named in the log now and then,
// however many others are refused; what looking for him costs is bounded.
func TestForcedFindsLegacyUser(t *testing.T) {
	s := newTestServer(t, ServerConfig{AEADForced: true, Now: at(noon.Unix())})
	named := 0
	for i := range 2000 {
		wire := forger{id: testID, legacy: testID, at: noon.Add(time.Duration(i%100) * time.Second)}.wire()
		_, err := serve(s, wire)
		if !errors.Is(err, ErrInvalidUser) {
			t.Fatal(err)
		}
		if errors.Is(err, ErrAEADRequired) {
			named++
		}
	}
	if named == 0 || named == 2000 {
		t.Errorf("named %d times in 2000", named)
	}
}

// The comparison can fail: it tells servers of other users apart, whose secret
// count is another, and distributions that differ by a little.
func TestKolmogorovSmirnov(t *testing.T) {
	count := func(id ID) []float64 {
		s := newTestServer(t, ServerConfig{Users: []User{{ID: id}}, AEADForced: true, Now: at(noon.Unix())})
		noise := cause{"noise", ErrInvalidUser, func() []byte { return pattern(probeSize, 7) }}
		return probe(t, rand.New(rand.NewPCG(3, 4)), s, []cause{noise}, 100)[0].bytes
	}
	if p := kolmogorovSmirnov(count(testID), count(otherID)); p > 1e-6 {
		t.Errorf("servers of two ids: p = %g", p)
	}
	ramp := func(n, from int) (all []float64) {
		for i := range n {
			all = append(all, float64(from+i))
		}
		return all
	}
	for _, c := range []struct {
		a, b []float64
		p    float64
	}{ // p by the series of the asymptotic distribution, at D of 0, 0.5, 0.05 and 0.1
		{ramp(20, 0), ramp(20, 0), 1},
		{ramp(20, 0), ramp(20, 10), 0.00816},
		{ramp(2000, 0), ramp(2000, 100), 0.0127},
		{ramp(2000, 0), ramp(2000, 200), 3.5e-9},
		{[]float64{1, 1, 1, 2}, []float64{2, 1, 1, 1}, 1},
	} {
		if p := kolmogorovSmirnov(c.a, c.b); math.Abs(p-c.p) > c.p/10 {
			t.Errorf("%d and %d values: p = %g, want %g", len(c.a), len(c.b), p, c.p)
		}
	}
}

// kolmogorovSmirnov is the probability that two samples of one distribution
// lie as far apart as a and b, by the asymptotic formula with Stephens'
// correction; where values repeat it errs to the high side.
func kolmogorovSmirnov(a, b []float64) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	var i, j int
	var d float64
	for i < len(a) && j < len(b) {
		at := min(a[i], b[j])
		for i < len(a) && a[i] == at {
			i++
		}
		for j < len(b) && b[j] == at {
			j++
		}
		d = max(d, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := math.Sqrt(float64(len(a)) * float64(len(b)) / float64(len(a)+len(b)))
	x := (n + 0.12 + 0.11/n) * d
	if x < 0.3 { // where the series converges slowly, and is 1 to five digits
		return 1
	}
	var p float64
	for k, sign := 1.0, 2.0; k <= 100; k, sign = k+1, -sign {
		p += sign * math.Exp(-2*k*k*x*x)
	}
	return min(1, max(0, p))
}

func median(all []float64) float64 {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}
