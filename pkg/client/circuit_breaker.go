package client

import (
	"sync"
	"time"

	"vmess-local/pkg/diagnose"
)

// retryInterval is how often a request is let through to a server that is known not
// to accept us, to see whether it was mended.
const retryInterval = 10 * time.Second

// A circuitBreaker spares requests the silence of a server that does not accept us: once
// it is known why, new ones fail at once. Its zero value lets all through; it
// may be used concurrently.
type circuitBreaker struct {
	mu      sync.Mutex
	verdict diagnose.Verdict // zero: open
	since   time.Time
	tried   time.Time // when a request was let through last
}

// trip makes new requests fail with v, if v is one that only the user or the
// server's owner can do something about, and that is not a mere possibility.
func (b *circuitBreaker) trip(v diagnose.Verdict, now time.Time) {
	switch v.Cause {
	case diagnose.VMessAEADRequired, diagnose.VMessAEADUnsupported, diagnose.VMessUnknownUser:
	default:
		return
	}
	if v.Confidence == diagnose.Possible {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.verdict.IsZero() {
		b.since, b.tried = now, now
	}
	b.verdict = v
}

// reject returns what a new request fails with, if it does; answered is when
// the server accepted somebody last.
func (b *circuitBreaker) reject(now, answered time.Time) (v diagnose.Verdict, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.verdict.IsZero():
		return v, false
	case answered.After(b.since):
		b.verdict = diagnose.Verdict{}
		return v, false
	case now.Sub(b.tried) >= retryInterval:
		b.tried = now
		return v, false
	}
	return b.verdict, true
}
