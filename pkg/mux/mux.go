// Package mux reads and writes the frames of Mux.Cool, by which many sessions
// share one stream, and of XUDP, its form for datagrams (docs/protocol.md 10
// and 11). [EndAll] serves a stream by ending every session at once, which is
// what a server that offers no sessions owes a client that asks whether it is
// accepted.
package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"vmess-local/pkg/netaddr"
)

// A Status says what a frame does to its session.
type Status byte

// The statuses.
const (
	StatusNew       Status = 1
	StatusKeep      Status = 2
	StatusEnd       Status = 3
	StatusKeepAlive Status = 4
)

// A Network is what a session carries.
type Network byte

// The networks.
const (
	NetworkTCP Network = 1
	NetworkUDP Network = 2
)

const (
	optionData  = 1
	optionError = 2

	minMeta = 4
	maxMeta = 512

	addrIPv4   = 1
	addrDomain = 2
	addrIPv6   = 3
)

// MaxData is the most data that one frame can carry.
const MaxData = 65535

// ErrBadFrame is wrapped by the errors of frames that cannot be read: the
// stream is lost with them.
var ErrBadFrame = errors.New("bad mux frame")

// A Frame is one frame's meta part. Its data travels behind it.
type Frame struct {
	Session uint16
	Status  Status
	Error   bool    // an End because of an error
	Network Network // 0: the frame has no address
	Address netaddr.Addr
	// GlobalID is XUDP's eight bytes behind the address of a New; none when
	// HasGlobalID is false.
	GlobalID    [8]byte
	HasGlobalID bool
	HasData     bool // data follows, be it empty
}

// Append writes the frame, and data behind it when HasData is set; data has at
// most MaxData bytes.
func (f Frame) Append(dst, data []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, f.Session)
	var option byte
	if f.HasData {
		option |= optionData
	}
	if f.Error {
		option |= optionError
	}
	dst = append(dst, byte(f.Status), option)
	if f.Network != 0 {
		dst = append(dst, byte(f.Network))
		dst = appendAddress(dst, f.Address)
		if f.HasGlobalID {
			dst = append(dst, f.GlobalID[:]...)
		}
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	if f.HasData {
		dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(data))), data...)
	}
	return dst
}

func appendAddress(dst []byte, a netaddr.Addr) []byte {
	dst = binary.BigEndian.AppendUint16(dst, a.Port())
	switch ip := a.IP(); {
	case ip.Is4():
		return append(append(dst, addrIPv4), ip.AsSlice()...)
	case ip.Is6():
		return append(append(dst, addrIPv6), ip.AsSlice()...)
	}
	name := a.Host()
	return append(append(dst, addrDomain, byte(len(name))), name...)
}

// A Reader reads frames off a stream.
type Reader struct {
	r    io.Reader
	left int // data of the last frame that was not read yet
	meta [maxMeta]byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next reads the next frame and drops what was not read of the last one's
// data. io.EOF is the stream's end between two frames.
func (r *Reader) Next() (Frame, error) {
	if r.left > 0 {
		if _, err := io.CopyN(io.Discard, r.r, int64(r.left)); err != nil {
			return Frame{}, unexpected(err)
		}
		r.left = 0
	}
	var size [2]byte
	if _, err := io.ReadFull(r.r, size[:]); err != nil {
		return Frame{}, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n < minMeta || n > maxMeta {
		return Frame{}, fmt.Errorf("%w: meta of %d bytes", ErrBadFrame, n)
	}
	if _, err := io.ReadFull(r.r, r.meta[:n]); err != nil {
		return Frame{}, unexpected(err)
	}
	f, err := parse(r.meta[:n])
	if err != nil || !f.HasData {
		return f, err
	}
	if _, err := io.ReadFull(r.r, size[:]); err != nil {
		return Frame{}, unexpected(err)
	}
	r.left = int(binary.BigEndian.Uint16(size[:]))
	return f, nil
}

// Read reads the data of the last frame; io.EOF is its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parse(meta []byte) (Frame, error) {
	f := Frame{
		Session: binary.BigEndian.Uint16(meta), Status: Status(meta[2]),
		HasData: meta[3]&optionData != 0, Error: meta[3]&optionError != 0,
	}
	rest := meta[minMeta:]
	switch {
	case f.Status < StatusNew || f.Status > StatusKeepAlive:
		return Frame{}, fmt.Errorf("%w: status %d", ErrBadFrame, f.Status)
	case f.Status == StatusNew:
		if len(rest) == 0 || rest[0] != byte(NetworkTCP) && rest[0] != byte(NetworkUDP) {
			return Frame{}, fmt.Errorf("%w: no network", ErrBadFrame)
		}
	case f.Status != StatusKeep || len(rest) == 0 || rest[0] != byte(NetworkUDP):
		return f, nil // only XUDP's Keep has an address
	}
	f.Network = Network(rest[0])
	var err error
	if f.Address, rest, err = parseAddress(rest[1:]); err != nil {
		return Frame{}, err
	}
	if f.Status == StatusNew && f.Network == NetworkUDP && len(rest) >= len(f.GlobalID) {
		f.GlobalID, f.HasGlobalID = [8]byte(rest), true
	}
	return f, nil
}

func parseAddress(p []byte) (a netaddr.Addr, rest []byte, err error) {
	short := fmt.Errorf("%w: its address is cut off", ErrBadFrame)
	if len(p) < 4 {
		return a, nil, short
	}
	port, kind, p := binary.BigEndian.Uint16(p), p[2], p[3:]
	n := map[byte]int{addrIPv4: 4, addrIPv6: 16, addrDomain: 1 + int(p[0])}[kind]
	switch {
	case n == 0:
		return a, nil, fmt.Errorf("%w: address type %d", ErrBadFrame, kind)
	case len(p) < n:
		return a, nil, short
	case kind == addrDomain:
		if a, err = netaddr.FromHost(string(p[1:n]), port); err != nil {
			return a, nil, fmt.Errorf("%w: %w", ErrBadFrame, err)
		}
	default:
		ip, _ := netip.AddrFromSlice(p[:n])
		a = netaddr.FromIP(ip, port)
	}
	return a, p[n:], nil
}

// maxSessions is how many sessions one stream may open in its lifetime, as
// V2Ray has it.
const maxSessions = 128

// EndAll answers every session that is opened on a stream by its end, until
// the stream ends or more sessions came than any client opens. The caller
// closes the stream.
func EndAll(rw io.ReadWriter) error {
	r := NewReader(rw)
	for range maxSessions {
		f, err := r.Next()
		for err == nil && f.Status != StatusNew {
			f, err = r.Next()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		end := Frame{Session: f.Session, Status: StatusEnd, Error: true}
		if _, err := rw.Write(end.Append(nil, nil)); err != nil {
			return err
		}
	}
	return nil
}
