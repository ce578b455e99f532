package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"vmess-local/pkg/transport/netaddr"
)

// SOCKS4 and its extension 4a for names have no RFC; the documents are
// "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A".
const (
	version4       = 0x04
	commandConnect = 0x01
	granted4       = 90
	rejected4      = 91
	maxText4       = 255 // for a user id or a name, without the NUL
)

var errLongText = errors.New("a SOCKS4 field is longer than 255 bytes")

// readSOCKS4 reads a request and returns what it asks for. It reads no byte
// beyond it. The user id proves nothing and is dropped.
func readSOCKS4(r io.Reader, auth *Auth) (netaddr.Addr, error) {
	var head [8]byte // version, command, port, address
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netaddr.Addr{}, readFailure(err, protocol4, part)
	}
	if _, err := readText4(r); err != nil {
		return netaddr.Addr{}, err
	}
	host, err := host4(r, [4]byte(head[4:]))
	if err != nil {
		return netaddr.Addr{}, err
	}
	switch {
	case auth != nil:
		return netaddr.Addr{}, refuse4(fmt.Errorf("%w: SOCKS4 has no password, use SOCKS5", ErrBadAuth))
	case head[1] != commandConnect:
		return netaddr.Addr{}, refuse4(fmt.Errorf("%w: SOCKS4 0x%02x", ErrCommand, head[1]))
	}
	dst, err := destination(host, binary.BigEndian.Uint16(head[2:]))
	if err != nil {
		return netaddr.Addr{}, refuse4(badDestination(protocol4, err))
	}
	return dst, nil
}

const protocol4, part = "SOCKS4", "request"

// host4 returns the address in text, or the name that follows where 4a's
// impossible address 0.0.0.x announces one.
func host4(r io.Reader, ip [4]byte) (string, error) {
	if ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] != 0 {
		return readText4(r)
	}
	return netip.AddrFrom4(ip).String(), nil
}

// readText4 reads up to the NUL, byte by byte so that nothing beyond is taken.
func readText4(r io.Reader) (string, error) {
	var one [1]byte
	text := make([]byte, 0, 32)
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return "", readFailure(err, protocol4, part)
		}
		switch {
		case one[0] == 0:
			return string(text), nil
		case len(text) == maxText4:
			return "", refuse4(malformed(protocol4, "%w", errLongText))
		}
		text = append(text, one[0])
	}
}

func refuse4(err error) error { return &refusal{reply4(rejected4, netip.AddrPort{}), err} }

// reply4 has room for an IPv4 address only; any other is 0.0.0.0:0.
func reply4(code byte, bound netip.AddrPort) []byte {
	wire := make([]byte, 8)
	wire[1] = code
	if ip := bound.Addr().Unmap(); ip.Is4() {
		binary.BigEndian.PutUint16(wire[2:], bound.Port())
		copy(wire[4:], ip.AsSlice())
	}
	return wire
}

type socks4Replies struct{}

func (socks4Replies) success(bound netip.AddrPort) []byte { return reply4(granted4, bound) }
func (socks4Replies) failure(error) []byte                { return reply4(rejected4, netip.AddrPort{}) }
