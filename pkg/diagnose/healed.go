package diagnose

import (
	"strconv"
	"strings"
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
func HealedAEAD(s ServerContext) string {
	return healed(VMessAEADRequired, "using VMessAEAD, the server refuses MD5; to make it permanent: "+useAEAD(s))
}

// HealedEarlyData says that early data is no longer sent.
func HealedEarlyData(s ServerContext) string {
	return healed(WSEarlyDataRefused, "continuing without early data; to make it permanent: "+s.set("ws.earlyData", "0"))
}

// HealedRefused says that requests which the server refused by mistake were
// sent again.
func HealedRefused(n int) string {
	return healed(VMessRefused, plural(n, "request")+" refused by the server's replay filter sent again")
}

// A Healing is what a running client does by itself about what is wrong.
type Healing struct {
	Clock     bool // signs with the server's time
	AEAD      bool // uses VMessAEAD in place of MD5
	EarlyData bool // continues without early data
}

// String says what the client does: "signs with the server's time".
func (h Healing) String() string {
	var parts []string
	if h.EarlyData {
		parts = append(parts, "continues without early data")
	}
	if h.AEAD {
		parts = append(parts, "switches to VMessAEAD")
	}
	if h.Clock {
		parts = append(parts, "signs with the server's time")
	}
	return strings.Join(parts, " and ")
}

// ClockDetail words the difference of clocks for a check; skew is this clock
// minus the server's.
func ClockDetail(skew time.Duration) string {
	switch seconds := skew.Round(time.Second); {
	case seconds == 0:
		return "this computer and the server agree"
	case seconds > 0:
		return "this computer is " + spoken(seconds) + " ahead of the server"
	default:
		return "this computer is " + spoken(seconds) + " behind the server"
	}
}

func healed(c Cause, what string) string { return "healed: " + string(c) + ": " + what }
