package tlsconn

import "encoding/binary"

const (
	// headerLen is the length of a record's header (RFC 8446 section 5.1).
	headerLen = 5
	// maxPlaintext is the most that a record carries (RFC 8446 section 5.1).
	maxPlaintext = 1 << 14
	// maxBody is the most that a protected record has behind its header, in
	// TLS 1.2 (RFC 5246 section 6.2.3); TLS 1.3 allows less.
	maxBody = maxPlaintext + 2048
)

// Content types (RFC 8446 section 5.1).
const (
	typeChangeCipherSpec = 20
	typeHeartbeat        = 24
)

// A header is what stands before each record.
type header struct {
	contentType byte
	major       byte // of the version
	length      int  // of the body
}

// parseHeader reads the header at the start of b, if there is a whole one.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerLen {
		return h, false
	}
	return header{contentType: b[0], major: b[1], length: int(binary.BigEndian.Uint16(b[3:]))}, true
}

// size is that of the record with its header.
func (h header) size() int { return headerLen + h.length }

// plausible reports whether a record may begin so. Only then is it worth
// waiting for the rest; what is wrong with others shows in the header.
func (h header) plausible() bool {
	return h.contentType >= typeChangeCipherSpec && h.contentType <= typeHeartbeat &&
		h.major == 3 && h.length <= maxBody
}
