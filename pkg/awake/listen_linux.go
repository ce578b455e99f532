package awake

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// noticeSize is the longest notice that is read; of a longer one nothing is
// lost that is of interest.
const noticeSize = 4 << 10

// listen says on notices that the kernel changed an address, a route or the
// carrier of an interface, until
// ctx ends. It returns at once where the kernel does not tell.
func listen(ctx context.Context, notices chan<- struct{}) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
		1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer func() {
		if stop() {
			_ = socket.Close()
		}
	}()
	buf := make([]byte, noticeSize)
	for {
		// What changed is looked up afterwards, so the notice itself does not
		// matter; ENOBUFS means that some were lost.
		if _, err := socket.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		select {
		case notices <- struct{}{}:
		default:
		}
	}
}
