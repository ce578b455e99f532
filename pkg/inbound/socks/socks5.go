package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/txthinking/socks5"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/netaddr"
)

const protocol5 = "SOCKS5"

// A request5 is what a SOCKS5 client asks for, and as whom.
type request5 struct {
	dst  netaddr.Addr
	user string
	udp  bool // UDP ASSOCIATE, else CONNECT
}

// readSOCKS5 leads the client through RFC 1928 up to its request. It reads no
// byte beyond it. What is refused with an answer is a *refusal.
func readSOCKS5(rw io.ReadWriter, auth *Auth, udp bool) (request5, error) {
	if err := chooseMethod(rw, auth); err != nil {
		return request5{}, err
	}
	user := ""
	if auth != nil {
		var err error
		if user, err = readPassword(rw, auth); err != nil {
			return request5{}, err
		}
	}
	r, err := readRequest5(rw, udp)
	r.user = user
	return r, err
}

// chooseMethod is RFC 1928 section 3.
func chooseMethod(rw io.ReadWriter, auth *Auth) error {
	const part = "greeting"
	method := socks5.MethodNone
	if auth != nil {
		method = socks5.MethodUsernamePassword
	}
	greeting, err := socks5.NewNegotiationRequestFrom(rw)
	switch {
	case errors.Is(err, socks5.ErrBadRequest):
		return &refusal{methodReply(socks5.MethodUnsupportAll), malformed(protocol5, "a greeting without methods")}
	case err != nil:
		return readFailure(err, protocol5, part)
	case !bytes.Contains(greeting.Methods, []byte{method}):
		return &refusal{methodReply(socks5.MethodUnsupportAll), noCommonMethod(greeting.Methods, auth)}
	}
	if _, err := rw.Write(methodReply(method)); err != nil {
		return readFailure(err, protocol5, part)
	}
	return nil
}

// noCommonMethod names why none of the methods that a client offers will do.
func noCommonMethod(offered []byte, auth *Auth) error {
	switch {
	case auth != nil:
		return fmt.Errorf("%w: the SOCKS5 client offers none", ErrBadAuth)
	case bytes.Contains(offered, []byte{socks5.MethodUsernamePassword}):
		return ErrNeedsNoAuth
	}
	return malformed(protocol5, "no authentication method in common: the client offers % x", offered[:min(len(offered), 8)])
}

// readPassword is RFC 1929.
func readPassword(rw io.ReadWriter, auth *Auth) (user string, err error) {
	const part = "password"
	given, err := socks5.NewUserPassNegotiationRequestFrom(rw)
	switch {
	case errors.Is(err, io.EOF):
		return "", errQuiet // a client that asks its user first
	case errors.Is(err, socks5.ErrUserPassVersion):
		return "", &refusal{passwordReply(socks5.UserPassStatusFailure), malformed(protocol5, "a password message of an unknown version")}
	case errors.Is(err, socks5.ErrBadRequest): // an empty field
		return "", &refusal{passwordReply(socks5.UserPassStatusFailure), ErrBadAuth}
	case err != nil:
		return "", readFailure(err, protocol5, part)
	case !auth.match(given.Uname, given.Passwd):
		return "", &refusal{passwordReply(socks5.UserPassStatusFailure), ErrBadAuth}
	}
	if _, err := rw.Write(passwordReply(socks5.UserPassStatusSuccess)); err != nil {
		return "", readFailure(err, protocol5, part)
	}
	return string(given.Uname), nil
}

// readRequest5 is RFC 1928 section 4, for CONNECT and, where udp says so, for
// UDP ASSOCIATE.
func readRequest5(r io.Reader, udp bool) (request5, error) {
	const part = "request"
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
		return request5{}, errQuiet
	} else if err != nil {
		return request5{}, readFailure(err, protocol5, part)
	}
	switch head[3] { // the library does not tell an unknown type from an empty name
	case socks5.ATYPIPv4, socks5.ATYPIPv6, socks5.ATYPDomain:
	default:
		return request5{}, refuse5(socks5.RepAddressNotSupported, malformed(protocol5, "unknown address type 0x%02x", head[3]))
	}
	req, err := socks5.NewRequestFrom(io.MultiReader(bytes.NewReader(head[:]), r))
	switch {
	case errors.Is(err, socks5.ErrVersion):
		return request5{}, refuse5(socks5.RepServerFailure, malformed(protocol5, "a request of version 0x%02x", head[0]))
	case errors.Is(err, socks5.ErrBadRequest):
		return request5{}, refuse5(socks5.RepServerFailure, badDestination(protocol5, netaddr.ErrEmptyHost))
	case err != nil:
		return request5{}, readFailure(err, protocol5, part)
	case req.Cmd == socks5.CmdUDP && udp:
		return request5{dst: named5(req), udp: true}, nil
	case req.Cmd == socks5.CmdUDP:
		return request5{}, refuse5(socks5.RepCommandNotSupported, ErrNoUDP)
	case req.Cmd != socks5.CmdConnect:
		return request5{}, refuse5(socks5.RepCommandNotSupported, fmt.Errorf("%w: %s", ErrCommand, commandName(req.Cmd)))
	}
	dst, err := destination5(req)
	if err != nil {
		return request5{}, refuse5(socks5.RepServerFailure, badDestination(protocol5, err))
	}
	return request5{dst: dst}, nil
}

// named5 is where the client of a UDP ASSOCIATE says it will send from. A name
// says nothing: it would have to be resolved.
func named5(req *socks5.Request) netaddr.Addr {
	ip, ok := netip.AddrFromSlice(req.DstAddr)
	if req.Atyp == socks5.ATYPDomain || !ok {
		return netaddr.FromIP(netip.IPv4Unspecified(), 0)
	}
	return netaddr.FromIP(ip, binary.BigEndian.Uint16(req.DstPort))
}

func destination5(req *socks5.Request) (netaddr.Addr, error) {
	port := binary.BigEndian.Uint16(req.DstPort)
	if req.Atyp == socks5.ATYPDomain {
		return destination(string(req.DstAddr[1:]), port)
	}
	ip, _ := netip.AddrFromSlice(req.DstAddr) // 4 or 16 bytes by its type
	return destination(ip.String(), port)
}

func commandName(cmd byte) string {
	if cmd == socks5.CmdBind {
		return "BIND"
	}
	return fmt.Sprintf("0x%02x", cmd)
}

func methodReply(method byte) []byte   { return []byte{socks5.Ver, method} }
func passwordReply(status byte) []byte { return []byte{socks5.UserPassVer, status} }

func refuse5(rep byte, err error) error {
	return &refusal{reply5(rep, netip.AddrPort{}), err}
}

// reply5 is RFC 1928 section 6. An unknown bound address is 0.0.0.0:0.
func reply5(rep byte, bound netip.AddrPort) []byte {
	ip, atyp := bound.Addr().Unmap(), socks5.ATYPIPv4
	switch {
	case !ip.IsValid():
		ip = netip.IPv4Unspecified()
	case ip.Is6():
		atyp = socks5.ATYPIPv6
	}
	var wire bytes.Buffer
	port := binary.BigEndian.AppendUint16(nil, bound.Port())
	_, _ = socks5.NewReply(rep, atyp, ip.AsSlice(), port).WriteTo(&wire) // a Buffer takes all
	return wire.Bytes()
}

type socks5Replies struct{}

func (socks5Replies) success(bound netip.AddrPort) []byte {
	return reply5(socks5.RepSuccess, bound)
}

func (socks5Replies) failure(cause error) []byte {
	return reply5(code5(transport.CodeOf(cause)), netip.AddrPort{})
}

func code5(c transport.Code) byte {
	switch c {
	case transport.CodeNotAllowed:
		return socks5.RepNotAllowed
	case transport.CodeNetworkUnreachable:
		return socks5.RepNetworkUnreachable
	case transport.CodeHostUnreachable:
		return socks5.RepHostUnreachable
	case transport.CodeConnectionRefused:
		return socks5.RepConnectionRefused
	default:
		return socks5.RepServerFailure
	}
}
