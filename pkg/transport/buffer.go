package transport

import "sync"

// BufferSize is the size of the shared buffers in bytes. It holds the largest
// VMess chunk (65,535 bytes and its length field, docs/protocol.md 8).
const BufferSize = 66 << 10

// A Buffer is a piece of memory lent by GetBuffer.
type Buffer [BufferSize]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// GetBuffer lends a buffer with undefined contents.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Release gives the buffer back; nobody may use it afterwards.
func (b *Buffer) Release() { buffers.Put(b) }
