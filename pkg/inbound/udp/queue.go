package udp

import (
	"sync"
	"sync/atomic"
)

// A budget bounds the bytes of all queues together.
type budget struct {
	used atomic.Int64
	most int64
}

func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.most {
		b.give(n)
		return false
	}
	return true
}

func (b *budget) give(n int) { b.used.Add(int64(-n)) }

// A queue keeps packets in order within its bounds.
type queue struct {
	packets, bytes int // the bounds
	budget         *budget
	ready          chan struct{} // has a token when there may be packets

	mu     sync.Mutex
	ring   []packet
	head   int // the oldest
	n      int
	held   int // bytes
	closed bool
}

func newQueue(packets, bytes int, b *budget) *queue {
	return &queue{packets: packets, bytes: bytes, budget: b, ready: make(chan struct{}, 1)}
}

// push takes p over. It is false where a bound is reached or the queue is
// closed: p is still the caller's then.
func (q *queue) push(p packet) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := p.size()
	if q.closed || q.n == q.packets || q.held+size > q.bytes || !q.budget.take(size) {
		return false
	}
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)%len(q.ring)] = p
	q.n++
	q.held += size
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

func (q *queue) grow() {
	ring := make([]packet, min(max(2*len(q.ring), 4), q.packets))
	for i := range q.n {
		ring[i] = q.ring[(q.head+i)%len(q.ring)]
	}
	q.ring, q.head = ring, 0
}

// pop returns the oldest packet, which is the caller's then.
func (q *queue) pop() (packet, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.popLocked()
}

func (q *queue) popLocked() (packet, bool) {
	if q.n == 0 {
		return packet{}, false
	}
	p := q.ring[q.head]
	q.ring[q.head] = packet{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.held -= p.size()
	q.budget.give(p.size())
	return p, true
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n == 0
}

// trim gives memory back if there is nothing to pop, and reports whether.
func (q *queue) trim() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		q.ring, q.head = nil, 0
	}
	return q.n == 0
}

// clear releases what is queued and returns how many packets that were.
func (q *queue) clear() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped := q.n
	for q.n > 0 {
		p, _ := q.popLocked()
		p.release()
	}
	q.ring, q.head = nil, 0
	return dropped
}

// close is clear for good: nothing is taken any more.
func (q *queue) close() int {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	return q.clear()
}
