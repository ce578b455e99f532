// Package stats counts what passes through a proxy and lists what is open: for
// a status page and for metrics. It knows no protocol; who serves a connection
// tells it.
package stats

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vmess-local/pkg/transport"
)

// keptFailures bounds the failures that are remembered, and the healings.
const keptFailures = 30

// A Registry holds the counters and the tables. It may be used concurrently.
type Registry struct {
	started time.Time

	mu       sync.Mutex
	flows    map[uint64]*flow
	next     uint64
	up, down int64 // of flows that ended
	failed   int64 // flows that ended with an error
	failures []Failure
	healed   []Healing
	users    map[string]User // of flows that ended

	looked bool
	seen   int64     // bytes down at the last look
	moved  time.Time // when they had grown last
}

// A User is what one user has moved since the start.
type User struct {
	Name     string
	Open     int
	Opened   int64
	Up, Down int64 // bytes, of open connections too
}

// A Healing is something that was put right by itself.
type Healing struct {
	Time                    time.Time
	Cause, Sentence, Server string
	Count                   int
}

// NewRegistry returns an empty Board.
func NewRegistry() *Registry {
	return &Registry{started: time.Now(), flows: map[uint64]*flow{}, users: map[string]User{}}
}

// A flow is one open connection.
type flow struct {
	request  *transport.Request
	to       func() string // where it leads; nil: to the request's destination
	started  time.Time
	up, down *atomic.Int64
	cut      func()
}

func (f *flow) destination() string {
	if f.to != nil {
		return f.to()
	}
	return f.request.Destination.String()
}

// A Flow describes an open connection.
type Flow struct {
	ID          uint64
	Inbound     string
	Source      string // who asked; may be empty
	Destination string
	Started     time.Time
	Up, Down    int64 // bytes so far
}

// Totals are the counters since the start.
type Totals struct {
	Started  time.Time
	Open     int
	Opened   int64
	Failed   int64
	Up, Down int64 // bytes, of open connections too
	// Moved is the last look that found more bytes down than the one before;
	// zero when none has.
	Moved time.Time
}

// A Failure is one that was told to the user.
type Failure struct {
	Time                                     time.Time
	Cause, Sentence, Fix, Confidence, Server string
	// Site is the destination whose failure it is; empty where it is the server's,
	// or lies on the path to it.
	Site  string
	Count int
}

// Begin lists a connection until end is called, which may be done again. cut
// ends the connection; up and down count its bytes.
func (b *Registry) Begin(r *transport.Request, cut func()) (up, down *atomic.Int64, end func(failed bool)) {
	counted := new(struct{ up, down atomic.Int64 })
	return &counted.up, &counted.down, b.begin(&flow{request: r, up: &counted.up, down: &counted.down, cut: cut})
}

// BeginMany is Begin for what leads to many destinations and counts its bytes
// itself; to says in words where it leads now.
func (b *Registry) BeginMany(r *transport.Request, to func() string, up, down *atomic.Int64, cut func()) (end func(failed bool)) {
	return b.begin(&flow{request: r, to: to, up: up, down: down, cut: cut})
}

func (b *Registry) begin(f *flow) (end func(failed bool)) {
	f.started = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	id := b.next
	b.flows[id] = f
	return func(failed bool) { b.end(id, failed) }
}

func (b *Registry) end(id uint64, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.flows[id]
	if f == nil {
		return
	}
	delete(b.flows, id)
	b.up += f.up.Load()
	b.down += f.down.Load()
	u := b.users[f.request.User]
	u.add(f)
	b.users[f.request.User] = u
	if failed {
		b.failed++
	}
}

func (u *User) add(f *flow) {
	u.Opened++
	u.Up += f.up.Load()
	u.Down += f.down.Load()
}

// A View is what pages show of a Board, as JSON.
type View struct {
	Totals ViewTotals
	Moved  time.Time // as in Totals
	Open   []ViewFlow
}

// ViewTotals are Totals with the time in seconds.
type ViewTotals struct {
	Open    int     `json:"open"`
	Opened  int64   `json:"opened"`
	Failed  int64   `json:"failed"`
	Up      int64   `json:"up"`   // bytes
	Down    int64   `json:"down"` // bytes
	Seconds float64 `json:"seconds"`
}

// A ViewFlow is a Flow with its age in seconds.
type ViewFlow struct {
	ID      uint64  `json:"id"`
	To      string  `json:"to"`
	By      string  `json:"by"`
	From    string  `json:"from"`
	Up      int64   `json:"up"`
	Down    int64   `json:"down"`
	Seconds float64 `json:"seconds"`
}

// shownFlows bounds the open connections of a View.
const shownFlows = 200

// View returns what is to be shown now.
func (b *Registry) View() View {
	t := b.Totals()
	v := View{
		Totals: ViewTotals{t.Open, t.Opened, t.Failed, t.Up, t.Down, time.Since(t.Started).Seconds()},
		Moved:  t.Moved,
		Open:   []ViewFlow{},
	}
	for _, f := range b.Flows(shownFlows) {
		v.Open = append(v.Open, ViewFlow{f.ID, f.Destination, f.Inbound, f.Source, f.Up, f.Down, time.Since(f.Started).Seconds()})
	}
	return v
}

// Users returns what each user has moved, by name.
func (b *Registry) Users() []User {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := maps.Clone(b.users)
	for _, f := range b.flows {
		u := all[f.request.User]
		u.Open++
		u.add(f)
		all[f.request.User] = u
	}
	list := make([]User, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		u.Name = name
		list = append(list, u)
	}
	return list
}

// Close ends an open connection, and reports whether there was one.
func (b *Registry) Close(id uint64) bool {
	b.mu.Lock()
	f := b.flows[id]
	b.mu.Unlock()
	if f == nil {
		return false
	}
	f.cut()
	return true
}

// Flows returns the open connections, the newest first, at most so many; 0
// means all.
func (b *Registry) Flows(most int) []Flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Flow, 0, len(b.flows))
	for id, f := range b.flows {
		v := Flow{
			ID: id, Inbound: f.request.Inbound, Destination: f.destination(),
			Started: f.started, Up: f.up.Load(), Down: f.down.Load(),
		}
		if f.request.Source.IsValid() {
			v.Source = f.request.Source.String()
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, c Flow) int { return cmp.Compare(c.ID, a.ID) })
	if most > 0 && len(all) > most {
		all = all[:most]
	}
	return all
}

// Totals returns the counters.
func (b *Registry) Totals() Totals {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Totals{Started: b.started, Open: len(b.flows), Opened: int64(b.next), Failed: b.failed, Up: b.up, Down: b.down}
	for _, f := range b.flows {
		t.Up += f.up.Load()
		t.Down += f.down.Load()
	}
	if b.looked && t.Down > b.seen {
		b.moved = time.Now()
	}
	b.looked, b.seen, t.Moved = true, t.Down, b.moved
	return t
}

// AddFailure remembers a failure. One that the last failure of the same cause, server
// and site repeats is counted there. Those of sites and others are bounded apart.
func (b *Registry) AddFailure(f Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.failures {
		if old := &b.failures[i]; old.Cause == f.Cause && old.Server == f.Server && old.Site == f.Site {
			f.Count += old.Count
			b.failures = append(b.failures[:i], b.failures[i+1:]...)
			break
		}
	}
	b.failures = append(b.failures, f)
	like := func(o Failure) bool { return (o.Site == "") == (f.Site == "") }
	kept := 0
	for _, o := range b.failures {
		if like(o) {
			kept++
		}
	}
	if kept > keptFailures {
		i := slices.IndexFunc(b.failures, like)
		b.failures = slices.Delete(b.failures, i, i+1)
	}
}

// Failures returns what was told, the newest first.
func (b *Registry) Failures() []Failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	return newestFirst(b.failures)
}

// AddHealing remembers what was put right. The same cause of the same server is
// counted, and the newest words kept.
func (b *Registry) AddHealing(h Healing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h.Count = 1
	if i := slices.IndexFunc(b.healed, func(o Healing) bool { return o.Cause == h.Cause && o.Server == h.Server }); i >= 0 {
		h.Count += b.healed[i].Count
		b.healed = slices.Delete(b.healed, i, i+1)
	}
	b.healed = append(b.healed, h)
	if len(b.healed) > keptFailures {
		b.healed = b.healed[1:]
	}
}

// Healings returns what was put right, the newest first.
func (b *Registry) Healings() []Healing {
	b.mu.Lock()
	defer b.mu.Unlock()
	return newestFirst(b.healed)
}

func newestFirst[T any](list []T) []T {
	all := slices.Clone(list)
	slices.Reverse(all)
	return all
}
