package wsconn

import "encoding/binary"

// Opcodes and bits of RFC 6455 section 5.2.
const (
	opcodeClose   = 8
	opcodeControl = 8 // this bit marks the control frames
	finalClose    = 0x80 | opcodeClose
	maxHeader     = 14 // 2 bytes, a 64-bit length, a mask key
)

// A frameHeader is what the carrier must know of a frame to find the next
// one. Whether the frame is allowed is for gorilla to say.
type frameHeader struct {
	size    int    // of the header itself
	payload uint64 // bytes that follow
	opcode  byte
}

func (h frameHeader) control() bool { return h.opcode&opcodeControl != 0 }

// parseFrameHeader reads the header at the start of b; ok is false when it is
// not complete.
func parseFrameHeader(b []byte) (h frameHeader, ok bool) {
	if len(b) < 2 {
		return h, false
	}
	h.opcode = b[0] & 0x0f
	h.size = 2
	switch length := b[1] & 0x7f; length {
	case 126:
		h.size = 4
	case 127:
		h.size = 10
	default:
		h.payload = uint64(length)
	}
	lengthEnd := h.size
	if b[1]&0x80 != 0 {
		h.size += 4
	}
	if len(b) < h.size {
		return h, false
	}
	switch lengthEnd {
	case 4:
		h.payload = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		h.payload = binary.BigEndian.Uint64(b[2:])
	}
	return h, true
}
