package udp

import (
	"sync"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

// smallSize is the room of the small buffers: what a network carries in one
// piece, with its SOCKS5 header.
const smallSize = 2 << 10

type small [smallSize]byte

var smalls = sync.Pool{New: func() any { return new(small) }}

// A packet is a datagram on its way, in a buffer of its own: a small one where
// it fits.
type packet struct {
	to   netaddr.Addr
	data []byte // within one of the two
	slim *small
	wide *transport.Buffer
}

// newPacket copies data.
func newPacket(data []byte, to netaddr.Addr) packet {
	p := packet{to: to}
	room := p.lend(len(data))
	p.data = append(room, data...)
	return p
}

// lend takes a buffer for n bytes and returns it, empty.
func (p *packet) lend(n int) []byte {
	if n <= smallSize {
		p.slim = smalls.Get().(*small)
		return p.slim[:0]
	}
	p.wide = transport.GetBuffer()
	return p.wide[:0]
}

// size is the memory the packet takes up.
func (p *packet) size() int {
	if p.wide != nil {
		return transport.BufferSize
	}
	return smallSize
}

// release gives the buffer back.
func (p *packet) release() {
	if p.slim != nil {
		smalls.Put(p.slim)
	}
	if p.wide != nil {
		p.wide.Release()
	}
	*p = packet{}
}
