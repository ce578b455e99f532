package diagnose

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// HolderOf looks up who listens on a local address, as far as the system tells
// this user: others' processes are hidden. It reads /proc and takes a few
// milliseconds.
func HolderOf(addr string) Holder {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return Holder{}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return Holder{}
	}
	ip, _ := netip.ParseAddr(host) // a name or nothing: any address
	for _, table := range [...]string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if inode := listenerInode(data, ip, uint16(port)); inode != "" {
			return holderOf("socket:[" + inode + "]")
		}
	}
	return Holder{}
}

func holderOf(socket string) Holder {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*") // the pattern is right
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != socket {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return Holder{}
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm")) // without it the number must do
		return Holder{PID: pid, Name: string(bytes.TrimSpace(name))}
	}
	return Holder{}
}
