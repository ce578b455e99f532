// Package limit tells how many connections the process may have at one time:
// what the configuration says, or what the system's limit of open files
// allows. A [Budget] holds those that are open to it.
package limit

// spare are the files that are not connections: listeners, log, resolver.
const spare = 128

// fallback is the limit where the system tells none.
const fallback = 32768

// Files returns how many files the process may have open for connections,
// beside others that are kept for something else.
func Files(others int) int {
	n, ok := openFiles()
	if !ok {
		n = fallback
	}
	return max(2, n-spare-others)
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
