package main

import (
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supported says that this system tells what is measured here.
const supported = true

// bindToUs lets a program end with this one, however that ends.
func bindToUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// cpuTime is the user and system time of a process and all its threads: what
// /proc/PID/stat says, in nanoseconds in place of clock ticks
// (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// calm gives a socket of the load's the plainest congestion control there is:
// others pace loopback as if it were a long way. Only the load's ends are
// touched, the programs keep what the system gives them.
func calm(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") // or stay as it is
	})
}

// openFiles is how many files a program may hold open at a time.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}

// pause is time.Sleep for less than the millisecond that the latter takes at
// the least.
func pause(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // a signal may shorten it
}
