package rawsock

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2). Its error is a [syscall.Errno]: EAGAIN when there is
// nothing. A call that a signal interrupts is made again, here and below.
func Read(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if err != syscall.EINTR {
			return result(n, err)
		}
	}
}

// Write is write(2), which may take only the start of p.
func Write(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if err != syscall.EINTR {
			return result(n, err)
		}
	}
}

// Peek returns EAGAIN when there is nothing to read, and takes nothing.
func Peek(fd uintptr) error {
	var one byte
	for {
		_, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&one)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if err != syscall.EINTR {
			_, fault := result(0, err)
			return fault
		}
	}
}

// Writable reports whether a stream socket has room for something: on Linux at
// least a third of its buffer (sk_stream_is_writeable).
func Writable(fd uintptr) bool {
	asked := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	var now unix.Timespec
	n, _, err := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&asked)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return err == 0 && n == 1 && asked.Revents&unix.POLLOUT != 0
}

// SendQueue tells of a connected TCP socket how what it was given stands: waiting
// says that the other end's system has not acknowledged all of it, and missed
// how many times in a row that system did not answer what was sent again, or a
// probe. ok is false when the connection is not open both ways.
func SendQueue(fd uintptr) (waiting bool, missed int, ok bool) {
	const established = 1 // Linux's tcp_states.h
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != established {
		return false, 0, false
	}
	return info.Unacked > 0 || info.Notsent_bytes > 0, int(max(info.Retransmits, info.Probes)), true
}

// ReceiveFrom takes one datagram from a UDP socket. IPv4 addresses of an IPv6
// socket are mapped ones.
func ReceiveFrom(fd uintptr, p []byte) (int, netip.AddrPort, error) {
	var name unix.RawSockaddrInet6 // the larger
	for {
		size := uint32(unsafe.Sizeof(name))
		n, _, err := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
		switch err {
		case 0:
			return int(n), addrPort(&name), nil
		case syscall.EINTR:
		default:
			return 0, netip.AddrPort{}, err
		}
	}
}

// SendTo sends one datagram from a UDP socket of the family of to, which has
// no zone.
func SendTo(fd uintptr, p []byte, to netip.AddrPort) error {
	var name unix.RawSockaddrInet6 // the larger
	size := putAddrPort(&name, to)
	for {
		_, _, err := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&name)), size)
		if err != syscall.EINTR {
			_, fault := result(0, err)
			return fault
		}
	}
}

// result is what a call returned: n is nothing where it failed.
func result(n uintptr, err syscall.Errno) (int, error) {
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

// addrPort reads a name of either family; zones are lost.
func addrPort(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
}

// putAddrPort makes name that of a, and returns its size.
func putAddrPort(name *unix.RawSockaddrInet6, a netip.AddrPort) uintptr {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], a.Port())
	if a.Addr().Is4() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		four.Family, four.Addr = unix.AF_INET, a.Addr().As4()
		return unsafe.Sizeof(*four)
	}
	name.Family, name.Addr = unix.AF_INET6, a.Addr().As16()
	return unsafe.Sizeof(*name)
}
