package vmess

import (
	"maps"
	"sync"
	"time"
)

// legacyWindow is how many seconds' hashes of an id are good at one time.
const legacyWindow = 2*int64(TimeWindow/time.Second) + 1

// A legacyTable finds user and time by a legacy request's first 16 bytes: it
// holds the hashes of every id for every second of the window (section 13).
// It is brought up to date when it is asked.
type legacyTable struct {
	ids []legacyID

	mu      sync.Mutex
	at      int64 // the second that the table was brought up to
	hashes  map[[16]byte]legacyCredential
	second  map[int64][][16]byte // to forget them by
	tainted map[[16]byte]int64   // burnt hashes and their seconds
}

type legacyID struct {
	id   ID
	user *serverUser
}

// A legacyCredential is what one hash stands for.
type legacyCredential struct {
	user *serverUser
	unix int64
}

func newLegacyTable(users []*serverUser) *legacyTable {
	t := &legacyTable{
		hashes: map[[16]byte]legacyCredential{}, second: map[int64][][16]byte{}, tainted: map[[16]byte]int64{},
	}
	for _, u := range users {
		t.ids = append(t.ids, legacyID{u.ID, u})
		for _, id := range u.ID.alterIDs(u.AlterID) {
			t.ids = append(t.ids, legacyID{id, u})
		}
	}
	return t
}

// inherit takes over what another table has burnt.
func (t *legacyTable) inherit(old *legacyTable) {
	old.mu.Lock()
	defer old.mu.Unlock()
	t.tainted = maps.Clone(old.tainted)
}

// find returns what the hash stands for now. Once it met a replay or a
// corrupted request it is tainted: to be refused as long as it would be good.
func (t *legacyTable) find(hash [16]byte, now time.Time) (c legacyCredential, tainted, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(now.Unix())
	c, ok = t.hashes[hash]
	_, tainted = t.tainted[hash]
	return c, tainted, ok
}

// taint burns a credential.
func (t *legacyTable) taint(hash [16]byte, c legacyCredential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tainted[hash] = c.unix
}

// advance makes the table that of the window around now, wherever the clock
// went since the last time.
func (t *legacyTable) advance(now int64) {
	if now == t.at && len(t.second) > 0 {
		return
	}
	t.at = now
	from, to := now-legacyWindow/2, now+legacyWindow/2
	for s, hashes := range t.second {
		if s < from || s > to {
			for _, h := range hashes {
				delete(t.hashes, h)
			}
			delete(t.second, s)
		}
	}
	// A clock that is set back by a little makes old credentials good again.
	for h, s := range t.tainted {
		if s < from-legacyWindow || s > to+legacyWindow {
			delete(t.tainted, h)
		}
	}
	for s := from; s <= to; s++ {
		if _, ok := t.second[s]; !ok {
			t.learn(s)
		}
	}
}

func (t *legacyTable) learn(unix int64) {
	hashes := make([][16]byte, len(t.ids))
	for i, id := range t.ids {
		hashes[i] = legacyHash(id.id, unix)
		t.hashes[hashes[i]] = legacyCredential{user: id.user, unix: unix}
	}
	t.second[unix] = hashes
}
