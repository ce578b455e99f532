package diagnose

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// PortOwnerOf looks up who listens on a local address, as far as the system tells
// this user: others' processes are hidden. It reads /proc and takes a few
// milliseconds.
func PortOwnerOf(addr string) PortOwner {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return PortOwner{}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return PortOwner{}
	}
	ip, _ := netip.ParseAddr(host) // a name or nothing: any address
	for _, table := range [...]string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if inode := listenerInode(data, ip, uint16(port)); inode != "" {
			return portOwnerOf("socket:[" + inode + "]")
		}
	}
	return PortOwner{}
}

func portOwnerOf(socket string) PortOwner {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*") // the pattern is right
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != socket {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return PortOwner{}
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm")) // without it the number must do
		return PortOwner{PID: pid, Name: string(bytes.TrimSpace(name))}
	}
	return PortOwner{}
}
