package wsconn

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
)

const (
	// pingSize is the length of every ping's payload, which is random: what it
	// proves is remembered here and is nothing that could be seen on the wire.
	pingSize = 4
	// maxOutstanding is how many pings without a pong are remembered. A far end
	// may answer the last of several only (RFC 6455 section 5.5.3).
	maxOutstanding = 4
)

// A readProof knows how much of what was written the far end is proven to have
// read: what was written before a ping whose pong came. Nothing else proves
// that, because the two directions of a tunnel are independent of each other.
// Its zero value is ready for use; it may be used concurrently.
type readProof struct {
	mu     sync.Mutex
	pings  [maxOutstanding]outstandingPing // a ring
	next   int
	proven int64
}

// An outstandingPing is one that was sent; of none, before is 0.
type outstandingPing struct {
	payload uint32
	before  int64 // bytes that had been written completely
}

// ping returns the payload of a ping that is sent behind so many bytes.
func (r *readProof) ping(before int64) []byte {
	n := rand.Uint32()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pings[r.next] = outstandingPing{n, before}
	r.next = (r.next + 1) % maxOutstanding
	return binary.BigEndian.AppendUint32(make([]byte, 0, pingSize), n)
}

// pong takes note of a pong's payload.
func (r *readProof) pong(payload string) {
	if len(payload) != pingSize {
		return
	}
	n := binary.BigEndian.Uint32([]byte(payload))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pings {
		if p.payload == n {
			r.proven = max(r.proven, p.before)
		}
	}
}

// bytes returns how many of the written bytes are proven to have been read.
func (r *readProof) bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proven
}
