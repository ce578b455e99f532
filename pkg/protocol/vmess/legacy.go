package vmess

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

const (
	// legacyWindow is how many seconds' hashes of an id are good at one time.
	legacyWindow = 2*int64(TimeWindow/time.Second) + 1
	// legacySlack is how many seconds a legacyTable reaches beyond the window, so
	// that it need not be advanced while it is asked.
	legacySlack = 5
	// legacyTick is how often it is advanced.
	legacyTick = time.Second
)

// A legacyID is an id that legacy requests may carry the hash of.
type legacyID struct {
	id   ID
	user *serverUser
}

// legacyIDs returns all of them.
func legacyIDs(users []*serverUser) (ids []legacyID) {
	for _, u := range users {
		ids = append(ids, legacyID{u.ID, u})
		for _, id := range u.ID.alterIDs(u.AlterID) {
			ids = append(ids, legacyID{id, u})
		}
	}
	return ids
}

// A legacyHasher makes the hashes of one id.
type legacyHasher struct {
	mac  hash.Hash
	time [8]byte
	sum  [md5.Size]byte
}

func newLegacyHasher(id ID) *legacyHasher { return &legacyHasher{mac: hmac.New(md5.New, id[:])} }

func (h *legacyHasher) hash(unix int64) [16]byte {
	h.mac.Reset()
	binary.BigEndian.PutUint64(h.time[:], uint64(unix))
	_, _ = h.mac.Write(h.time[:]) // never fails
	h.mac.Sum(h.sum[:0])
	return h.sum
}

// A legacyCredential is what one hash stands for.
type legacyCredential struct {
	user *serverUser
	unix int64
}

// A legacyTable finds user and time by a legacy request's first 16 bytes: it
// holds the hashes of every id for every second of the window (section 13). It
// costs milliseconds to seconds to fill, which nobody who waits for a request's
// judgement may notice: it is filled before its use and advanced by a timer.
type legacyTable struct {
	ids []legacyID

	advancing sync.Mutex
	at        int64 // the second that it was advanced to; 0: it is empty

	mu     sync.RWMutex
	hashes map[[16]byte]legacyCredential
	second map[int64][][16]byte // to forget them by
}

func newLegacyTable(ids []legacyID, now time.Time) *legacyTable {
	t := &legacyTable{ids: ids, hashes: map[[16]byte]legacyCredential{}, second: map[int64][][16]byte{}}
	t.advance(now)
	return t
}

// find returns what the hash stands for now.
func (t *legacyTable) find(hash [16]byte, now time.Time) (c legacyCredential, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c, ok = t.hashes[hash]
	return c, ok && inWindow(c.unix, now)
}

// advance makes the table that of the window around now, wherever the clock
// went since the last time.
func (t *legacyTable) advance(now time.Time) {
	t.advancing.Lock()
	defer t.advancing.Unlock()
	at := now.Unix()
	if at == t.at {
		return
	}
	t.at = at
	from, to := at-legacyWindow/2-legacySlack, at+legacyWindow/2+legacySlack
	var missing []int64
	for s := from; s <= to; s++ {
		if _, ok := t.second[s]; !ok {
			missing = append(missing, s)
		}
	}
	fresh := t.seconds(missing)
	t.mu.Lock()
	defer t.mu.Unlock()
	for s, hashes := range t.second {
		if s < from || s > to {
			for _, h := range hashes {
				delete(t.hashes, h)
			}
			delete(t.second, s)
		}
	}
	for i, s := range missing {
		for j, h := range fresh[i] {
			t.hashes[h] = legacyCredential{user: t.ids[j].user, unix: s}
		}
		t.second[s] = fresh[i]
	}
}

// seconds returns the hashes of all ids for each of some seconds.
func (t *legacyTable) seconds(all []int64) [][][16]byte {
	fresh := make([][][16]byte, len(all))
	for i := range fresh {
		fresh[i] = make([][16]byte, len(t.ids))
	}
	for j, id := range t.ids {
		h := newLegacyHasher(id.id)
		for i, s := range all {
			fresh[i][j] = h.hash(s)
		}
	}
	return fresh
}

// keepLegacy advances the table of a server every second, as long as there is
// the server.
func keepLegacy(s *Server) {
	server := weak.Make(s)
	var tick func()
	tick = func() {
		if s := server.Value(); s != nil {
			s.advanceLegacy()
			time.AfterFunc(legacyTick, tick)
		}
	}
	time.AfterFunc(legacyTick, tick)
}

// advanceLegacy brings the server's table, if it has one, and what is tainted
// up to its clock.
func (s *Server) advanceLegacy() {
	now := s.now()
	if t := s.roster.Load().legacy; t != nil {
		t.advance(now)
	}
	s.taints.prune(now.Unix())
}

// taints are the burnt credentials: hashes that met a replay or a corrupted
// request, and are refused as long as they would be good. They outlast a change
// of the users.
type taints struct {
	mu    sync.RWMutex
	burnt map[[16]byte]int64 // and the seconds they are of
}

func (t *taints) add(hash [16]byte, c legacyCredential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.burnt == nil {
		t.burnt = map[[16]byte]int64{}
	}
	t.burnt[hash] = c.unix
}

func (t *taints) has(hash [16]byte) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, burnt := t.burnt[hash]
	return burnt
}

// prune forgets what is far outside the window: a clock that is set back by a
// little makes old credentials good again.
func (t *taints) prune(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h, s := range t.burnt {
		if s < now-2*legacyWindow || s > now+2*legacyWindow {
			delete(t.burnt, h)
		}
	}
}

// legacyCheckShare bounds what looking for legacy clients costs a server that
// refuses them: one in so many seconds of one processor.
const legacyCheckShare = 50

// A legacyCheck finds out, for the log only, whether a request that was refused
// is a legacy one of a user's, where AEAD is forced: the owner should hear that.
// There is no table then; each id's hashes are made anew, behind the judgement
// and beside the wait for the peer, by one request at a time and seldom enough
// for floods to cost nothing. Those in between count as noise.
type legacyCheck struct {
	busy atomic.Bool
	rest atomic.Int64 // none before, Unix nanoseconds
}

// begin reports whether a check may run now. end must follow.
func (k *legacyCheck) begin() bool {
	return time.Now().UnixNano() >= k.rest.Load() && k.busy.CompareAndSwap(false, true)
}

func (k *legacyCheck) end(began time.Time) {
	now := time.Now()
	k.rest.Store(now.Add(legacyCheckShare * now.Sub(began)).UnixNano())
	k.busy.Store(false)
}

// known reports whether a hash is that of an id within the window around now.
func (k *legacyCheck) known(ids []legacyID, hash [16]byte, now time.Time) bool {
	defer k.end(time.Now())
	first := now.Unix() - legacyWindow/2
	for _, id := range ids {
		h := newLegacyHasher(id.id)
		for s := range legacyWindow {
			if h.hash(first+s) == hash {
				return true
			}
		}
		runtime.Gosched() // nobody else is to notice it
	}
	return false
}
