package diagnose

import (
	"strconv"
	"time"
)

// HealedClock says that requests are signed with the server's time; skew is
// this clock minus the server's.
func HealedClock(skew time.Duration) string {
	seconds := strconv.FormatInt(int64(skew.Abs().Round(time.Second)/time.Second), 10)
	if skew < 0 {
		return healed(VMessClockSkew, "signing with the server's time, this clock is "+seconds+" s behind")
	}
	return healed(VMessClockSkew, "signing with the server's time, this clock is "+seconds+" s ahead")
}

// HealedAEAD says that VMessAEAD is used in place of the configured mode.
func HealedAEAD(s Setting) string {
	return healed(VMessAEADRequired, "using VMessAEAD, the server refuses MD5; to make it last: "+useAEAD(s))
}

// HealedEarlyData says that early data is no longer sent.
func HealedEarlyData(s Setting) string {
	return healed(WSEarlyDataRefused, "going on without early data; to make it last: "+s.set("ws.earlyData", "0"))
}

// HealedRefused says that requests which the server refused by mistake were
// sent again.
func HealedRefused(n int) string {
	return healed(VMessRefused, plural(n, "request")+" refused by the server's replay filter sent again")
}

func healed(c Cause, what string) string { return "healed: " + string(c) + ": " + what }
