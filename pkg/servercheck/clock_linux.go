package servercheck

import (
	"golang.org/x/sys/unix"

	"vmess-local/pkg/diagnose"
)

// clockKept asks the kernel whether a program keeps the clock in time
// (adjtimex(2)).
func clockKept() diagnose.Tristate {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return diagnose.Unknown
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return diagnose.No
	}
	return diagnose.Yes
}
