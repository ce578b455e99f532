package netmon

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// noticeSize is the longest notice that is read; of a longer one nothing is
// lost that is of interest.
const noticeSize = 4 << 10

// A year is how far ahead the clock's timer is set: it is not to fire, but to be
// cancelled when the clock jumps.
const year = 365 * 24 * time.Hour

// listen says on notices what the kernel tells, until ctx ends. It returns at
// once where the kernel tells nothing.
func listen(ctx context.Context, notices chan<- struct{}) {
	var both sync.WaitGroup
	both.Go(func() { listenNet(ctx, notices) })
	both.Go(func() { listenClock(ctx, year, notices) })
	both.Wait()
}

// notice says that something may have changed.
func notice(notices chan<- struct{}) {
	select {
	case notices <- struct{}{}:
	default:
	}
}

// listenClock says that the clock was set or that this computer slept, which
// for this clock is the same, and each time that ahead is over.
func listenClock(ctx context.Context, ahead time.Duration, notices chan<- struct{}) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	stop := context.AfterFunc(ctx, func() { _ = timer.Close() })
	defer func() {
		if stop() {
			_ = timer.Close()
		}
	}()
	raw, err := timer.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 8)
	for {
		at := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().Add(ahead).UnixNano())}
		failed := raw.Control(func(fd uintptr) {
			err = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &at, nil)
		})
		if failed == nil && err == nil {
			_, err = timer.Read(buf)
		}
		if failed != nil || err != nil && !errors.Is(err, unix.ECANCELED) {
			return
		}
		notice(notices)
	}
}

// listenNet says that the kernel changed an address, a route or the carrier of
// an interface.
func listenNet(ctx context.Context, notices chan<- struct{}) {
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
		notice(notices)
	}
}
