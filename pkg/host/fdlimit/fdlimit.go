// Package fdlimit tells how many connections the process may have at one time:
// what the configuration says, or what the system's limit on open files
// allows. A [Budget] holds those that are open to it.
package fdlimit

import "fmt"

const (
	// maxSpare are the files that are not connections: listeners, log, resolver,
	// tunnels that are being dialled. Where there are few files it is a third of
	// them, and minSpare at least.
	maxSpare = 128
	minSpare = 24
	// Few is how many connections programs like browsers may want at one time:
	// fewer deserve a warning.
	Few = 100
	// fallback is the limit where the system tells none.
	fallback = 32768
)

// Files splits the files that the process may have open: into those for
// connections, and for others, which ask for so many and get no more than half.
func Files(others int) (files, granted int) {
	n, ok := openFiles()
	if !ok {
		n = fallback
	}
	return split(n, others)
}

func split(n, others int) (files, granted int) {
	rest := max(4, n-min(maxSpare, max(minSpare, n/3)))
	granted = min(others, rest/2)
	return rest - granted, granted
}

// Connections returns configured when it is above 0 and that many, of which
// each needs some files, fit, and otherwise how many do.
func Connections(configured, files, each int) int {
	allowed := max(1, files/each)
	if configured > 0 {
		return min(configured, allowed)
	}
	return allowed
}

// Warning is what to log where a limit on open files allows fewer connections
// than are configured, or than are likely to be wanted; place says where in the
// user's file the key stands. "" is that there are enough.
func Warning(configured, allowed int, place string) string {
	const raise = "raise the hard limit (ulimit -Hn 4096, or LimitNOFILE=4096 of a service)"
	switch {
	case configured > allowed:
		return fmt.Sprintf("%q%s is %d, and the limit on open files allows %d connections: %s", "limits.connections", place, configured, allowed, raise)
	case configured == 0 && allowed < Few:
		return fmt.Sprintf("the limit on open files allows %d connections at one time: for more %s", allowed, raise)
	}
	return ""
}
