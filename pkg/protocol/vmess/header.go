package vmess

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"vmess-local/pkg/transport/netaddr"
)

// ErrBadHeader is wrapped by the errors of headers that cannot be read.
var ErrBadHeader = errors.New("invalid request header")

const headerVersion = 1

// address types of a request header (section 5).
const (
	addrIPv4   = 1
	addrDomain = 2
	addrIPv6   = 3
)

// A requestHeader is the plain form of a request's header (section 5).
type requestHeader struct {
	iv, key  [16]byte
	v        byte // comes back in the response
	option   Option
	security Security
	command  Command
	address  netaddr.Addr // none for CommandMux
}

// Behind an AEAD header's checksum this package's client leaves a note, which
// no other server looks at (section 3): four letters' worth of "own" and flags.
// By it the server knows that a body's end is always marked, and whether the
// client waits to learn what sort of server it is.
const (
	ownNote     = "vml"
	ownNoteSize = len(ownNote) + 1

	noteTell   = 0x01 // answer at once, before the destination does
	noteBreaks = 0x02 // a break mark is understood
)

// appendNote writes the note.
func appendNote(dst []byte, flags byte) []byte { return append(append(dst, ownNote...), flags) }

// readNote reads a note off what follows an AEAD header's checksum.
func readNote(rest []byte) (flags byte, own bool) {
	if len(rest) < ownNoteSize || string(rest[:len(ownNote)]) != ownNote {
		return 0, false
	}
	return rest[len(ownNote)], true
}

// append writes the header's plain form, checksum included. padding is 0 to
// 15 random bytes.
func (h *requestHeader) append(dst, padding []byte) []byte {
	start := len(dst)
	dst = append(dst, headerVersion)
	dst = append(dst, h.iv[:]...)
	dst = append(dst, h.key[:]...)
	dst = append(dst, h.v, byte(h.option), byte(len(padding))<<4|byte(h.security), 0, byte(h.command))
	if h.command != CommandMux {
		dst = binary.BigEndian.AppendUint16(dst, h.address.Port())
		switch ip := h.address.IP(); {
		case ip.Is4():
			dst = append(append(dst, addrIPv4), ip.AsSlice()...)
		case ip.Is6():
			dst = append(append(dst, addrIPv6), ip.AsSlice()...)
		default:
			name := h.address.Host()
			dst = append(append(dst, addrDomain, byte(len(name))), name...)
		}
	}
	dst = append(dst, padding...)
	return binary.BigEndian.AppendUint32(dst, fnv1a(dst[start:]))
}

// A plainReader gives the next n bytes of a header's plain form. They are
// valid until the next call.
type plainReader func(n int) ([]byte, error)

// readHeader reads a header piece by piece, as its own lengths demand, and
// checks the checksum before anything else is believed. fresh is called with
// the header's keys once they are known: its error stops the reading
// (section 13's order).
func readHeader(next plainReader, fresh func(h *requestHeader) error) (*requestHeader, error) {
	sum := uint32(fnvOffset)
	read := func(n int) ([]byte, error) {
		p, err := next(n)
		sum = fnvAdd(sum, p)
		return p, err
	}
	p, err := read(38)
	if err != nil {
		return nil, err
	}
	h := &requestHeader{
		iv: [16]byte(p[1:]), key: [16]byte(p[17:]), v: p[33],
		option: Option(p[34]), security: Security(p[35] & 0x0f), command: Command(p[37]),
	}
	version, padding := p[0], int(p[35]>>4)
	if err := fresh(h); err != nil {
		return nil, err
	}
	var addrErr error
	if h.command != CommandMux {
		h.address, addrErr, err = readAddress(read)
		if err != nil {
			return nil, err
		}
	}
	if padding > 0 {
		if _, err := read(padding); err != nil {
			return nil, err
		}
	}
	want := sum
	if p, err = next(4); err != nil {
		return nil, err
	}
	switch {
	case binary.BigEndian.Uint32(p) != want:
		return nil, errChecksum
	case version != headerVersion:
		return nil, fmt.Errorf("%w: version %d", ErrBadHeader, version)
	case addrErr != nil:
		return nil, fmt.Errorf("%w: invalid remote address: %w", ErrBadHeader, addrErr)
	}
	return h, checkFormat(h)
}

var errChecksum = fmt.Errorf("%w: invalid auth", ErrBadHeader)

// readAddress reads port and address. bad tells that the bytes were there but
// no destination can be made of them; err that they were not there.
func readAddress(read plainReader) (a netaddr.Addr, bad, err error) {
	p, err := read(3)
	if err != nil {
		return a, nil, err
	}
	port, kind := binary.BigEndian.Uint16(p), p[2]
	switch kind {
	case addrIPv4:
		if p, err = read(4); err == nil {
			a = netaddr.FromIP(netip.AddrFrom4([4]byte(p)), port)
		}
	case addrIPv6:
		if p, err = read(16); err == nil {
			a = netaddr.FromIP(netip.AddrFrom16([16]byte(p)), port)
		}
	case addrDomain:
		if p, err = read(1); err != nil {
			return a, nil, err
		}
		if p, err = read(int(p[0])); err == nil {
			a, bad = netaddr.FromHost(string(p), port)
		}
	default:
		bad = fmt.Errorf("address type %d", kind)
	}
	return a, bad, err
}

// checkFormat refuses what no body can be read for.
func checkFormat(h *requestHeader) error {
	switch h.command {
	case CommandTCP, CommandUDP, CommandMux:
	default:
		return fmt.Errorf("%w: unknown command %d", ErrBadHeader, h.command)
	}
	switch h.security {
	case SecurityAESCFB, SecurityAESGCM, SecurityChaCha20Poly1305, SecurityNone:
	default:
		return fmt.Errorf("%w: unknown security type %d", ErrBadHeader, h.security)
	}
	f := requestFormat(h, false)
	if h.command == CommandUDP && f.raw() {
		return fmt.Errorf("%w: bad packet connection: datagrams without chunks have no borders", ErrBadHeader)
	}
	if h.option.has(OptionPadding) && !h.option.has(OptionMasking) {
		return fmt.Errorf("%w: padding without masking", ErrBadHeader)
	}
	return nil
}

const (
	fnvOffset = 2166136261
	fnvPrime  = 16777619
)

func fnv1a(p []byte) uint32 { return fnvAdd(fnvOffset, p) }

func fnvAdd(sum uint32, p []byte) uint32 {
	for _, c := range p {
		sum = (sum ^ uint32(c)) * fnvPrime
	}
	return sum
}
