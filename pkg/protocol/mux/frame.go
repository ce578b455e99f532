package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"vmess-local/pkg/transport/netaddr"
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
	// optionStalled and optionDraining are of our own, which other ends ignore.
	optionStalled  = 0x40
	optionDraining = 0x80

	minMeta = 4
	maxMeta = 512

	addrIPv4   = 1
	addrDomain = 2
	addrIPv6   = 3

	// maxOverhead is the most that Append writes before the data: the meta
	// part with the longest address and a global id, and both lengths.
	maxOverhead = 2 + minMeta + 1 + 2 + 1 + 1 + netaddr.MaxNameLen + 8 + 2
)

// MaxData is the most data that one frame can carry.
const MaxData = 65535

// ErrBadFrame is wrapped by the errors of frames that cannot be read: the
// stream is lost with them.
var ErrBadFrame = errors.New("bad mux frame")

var errCutAddress = fmt.Errorf("%w: its address is cut off", ErrBadFrame)

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
	// Draining is vmess-server's: with a KeepAlive, that it takes no further
	// sessions in this tunnel; with an End, that it did not take this one.
	Draining bool
	// Stalled is vmess-server's, with an End because of an error: the destination
	// did not take what the session had for it, and so held the others up.
	Stalled bool
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
	if f.Draining {
		option |= optionDraining
	}
	if f.Stalled {
		option |= optionStalled
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
		p := ip.As4()
		return append(append(dst, addrIPv4), p[:]...)
	case ip.Is6():
		p := ip.As16()
		return append(append(dst, addrIPv6), p[:]...)
	}
	name := a.Host()
	return append(append(dst, addrDomain, byte(len(name))), name...)
}

func parse(meta []byte) (Frame, error) {
	f := Frame{
		Session: binary.BigEndian.Uint16(meta), Status: Status(meta[2]),
		HasData: meta[3]&optionData != 0, Error: meta[3]&optionError != 0,
	}
	f.Draining = meta[3]&optionDraining != 0 && (f.Status == StatusEnd || f.Status == StatusKeepAlive)
	f.Stalled = meta[3]&optionStalled != 0 && f.Status == StatusEnd && f.Error
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
	if len(p) < 4 {
		return a, nil, errCutAddress
	}
	port, kind, p := binary.BigEndian.Uint16(p), p[2], p[3:]
	var n int
	switch kind {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrDomain:
		n = 1 + int(p[0])
	default:
		return a, nil, fmt.Errorf("%w: address type %d", ErrBadFrame, kind)
	}
	if len(p) < n {
		return a, nil, errCutAddress
	}
	if kind == addrDomain {
		if a, err = netaddr.FromHost(string(p[1:n]), port); err != nil {
			return a, nil, fmt.Errorf("%w: %w", ErrBadFrame, err)
		}
		return a, p[n:], nil
	}
	ip, _ := netip.AddrFromSlice(p[:n])
	return netaddr.FromIP(ip, port), p[n:], nil
}
