package mux

import (
	"sync"
	"sync/atomic"

	"vmess-local/pkg/transport/netaddr"
)

const (
	blockSize = 16 << 10
	// sessionBlocks is the most that waits in one session: 256 KiB.
	sessionBlocks = 16
	// tunnelBlocks is what the sessions of a tunnel share, 4 MiB; beyond it
	// each may hold one block still.
	tunnelBlocks = 256
	// maxQueued is the most datagrams that wait in one session.
	maxQueued = 512
)

// A block is a piece of a queue.
type block struct {
	next *block
	r, w int
	data [blockSize]byte
}

var blocks = sync.Pool{New: func() any { return new(block) }}

// A queue holds what a session has received, in blocks that it borrows while
// there is something in them. Its user locks.
type queue struct {
	head, tail *block
	blocks     int
	held       *atomic.Int64 // blocks of the whole tunnel

	// The datagrams in it, of a session for such.
	packets []queued
	first   int // of packets
}

// A queued datagram's bytes lie in the blocks.
type queued struct {
	n    int
	addr netaddr.Addr
}

// room returns how many bytes may be put.
func (q *queue) room() int {
	most := sessionBlocks
	if q.held.Load() >= tunnelBlocks {
		most = 1
	}
	n := max(most-q.blocks, 0) * blockSize
	if q.tail != nil {
		n += blockSize - q.tail.w
	}
	return n
}

func (q *queue) empty() bool { return q.head == nil }

// put appends p, for which there must be room.
func (q *queue) put(p []byte) {
	for len(p) > 0 {
		if q.tail == nil || q.tail.w == blockSize {
			q.grow()
		}
		n := copy(q.tail.data[q.tail.w:], p)
		q.tail.w += n
		p = p[n:]
	}
}

func (q *queue) grow() {
	b := blocks.Get().(*block)
	b.next, b.r, b.w = nil, 0, 0
	if q.tail == nil {
		q.head = b
	} else {
		q.tail.next = b
	}
	q.tail = b
	q.blocks++
	q.held.Add(1)
}

// get moves bytes to p.
func (q *queue) get(p []byte) (n int) {
	for n < len(p) && q.head != nil {
		n += q.skip(copy(p[n:], q.head.data[q.head.r:q.head.w]))
	}
	return n
}

// skip drops n bytes of the first block.
func (q *queue) skip(n int) int {
	b := q.head
	if b.r += n; b.r == b.w {
		if q.head = b.next; q.head == nil {
			q.tail = nil
		}
		q.blocks--
		q.held.Add(-1)
		blocks.Put(b)
	}
	return n
}

// drop empties the queue.
func (q *queue) drop() {
	for q.head != nil {
		q.skip(q.head.w - q.head.r)
	}
	q.packets, q.first = nil, 0
}

// takes reports whether there is room for a datagram of n bytes.
func (q *queue) takes(n int) bool { return q.waiting() < maxQueued && n <= q.room() }

// waiting returns how many datagrams there are.
func (q *queue) waiting() int { return len(q.packets) - q.first }

// putPacket appends a datagram that it takes.
func (q *queue) putPacket(p []byte, addr netaddr.Addr) {
	if q.first > len(q.packets)/2 && len(q.packets) == cap(q.packets) {
		q.packets = q.packets[:copy(q.packets, q.packets[q.first:])]
		q.first = 0
	}
	q.packets = append(q.packets, queued{len(p), addr})
	q.put(p)
}

// getPacket moves the first datagram to p; what does not fit is lost.
func (q *queue) getPacket(p []byte) (int, netaddr.Addr) {
	d := q.packets[q.first]
	q.packets[q.first] = queued{}
	q.first++
	if q.waiting() == 0 {
		q.packets, q.first = q.packets[:0], 0
		if cap(q.packets) > 64 {
			q.packets = nil
		}
	}
	n := q.get(p[:min(len(p), d.n)])
	for left := d.n - n; left > 0; {
		left -= q.skip(min(left, q.head.w-q.head.r))
	}
	return n, d.addr
}
