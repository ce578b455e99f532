// Package limit tells how many connections the process may have at one time:
// what the configuration says, or what the system's limit of open files
// allows.
package limit

// spare are the files that are not connections: listeners, log, resolver.
const spare = 128

// fallback is the limit where the system tells none.
const fallback = 16384

// Connections returns configured when it is above 0 and fits the limit of
// open files, and otherwise what that limit allows when each connection needs
// files open files.
func Connections(configured, files int) int {
	allowed := fallback
	if n, ok := openFiles(); ok {
		allowed = max(1, (n-spare)/files)
	}
	if configured > 0 {
		return min(configured, allowed)
	}
	return allowed
}
