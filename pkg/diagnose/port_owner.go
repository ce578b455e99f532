package diagnose

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"

	"vmess-local/pkg/host/listen"
)

// A PortOwner is the process that has a port; the zero value is an unknown one.
type PortOwner struct {
	PID  int
	Name string // of the program; may be empty
}

// freeTried is how many ports are tried for a free one.
const freeTried = 20

// FreeAddress returns an address like addr, which is taken, with the next port
// that is free at this moment, or "" when none is near. It binds and releases
// the ports it tries.
func FreeAddress(addr string) string {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	port, err := strconv.Atoi(text)
	if err != nil || port <= 0 {
		return ""
	}
	for p := max(port+1, 1024); p <= min(max(port, 1023)+freeTried, 65535); p++ {
		next := net.JoinHostPort(host, strconv.Itoa(p))
		if l, err := listen.TCP(next); err == nil {
			_ = l.Close()
			return next
		}
	}
	return ""
}

// listenerInode finds in the text of /proc/net/tcp or tcp6 the socket that
// listens on port at an address that stands in the way of ip; an invalid ip is
// all addresses. "" is none.
func listenerInode(table []byte, ip netip.Addr, port uint16) string {
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) < 10 || string(fields[3]) != "0A" { // TCP_LISTEN
			continue
		}
		at, ok := parseSocket(string(fields[1]))
		if !ok || at.Port() != port {
			continue
		}
		inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
		if err != nil {
			continue
		}
		if inTheWay(at.Addr(), ip) {
			return strconv.FormatUint(inode, 10)
		}
	}
	return ""
}

// inTheWay reports whether a socket at an address keeps others from listening
// on ip, with the same port.
func inTheWay(at, ip netip.Addr) bool {
	ip, all := ip.Unmap(), netip.IPv6Unspecified() // which is IPv4, too
	switch {
	case !ip.IsValid() || ip == all || at == all:
		return true
	case ip.IsUnspecified() || at.IsUnspecified():
		return ip.Is4() && at.Is4()
	}
	return at == ip
}

// parseSocket reads an address as /proc/net/tcp prints it: words of 32 bits in
// the byte order of (little-endian) machines, then the port.
func parseSocket(text string) (netip.AddrPort, bool) {
	host, port, ok := bytes.Cut([]byte(text), []byte(":"))
	if !ok || len(port) != 4 || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(string(host))
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), true
}
