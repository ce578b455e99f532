//go:build race

package direct

// raceEnabled tells that sync.Pool drops items at random and allocations mean
// nothing.
const raceEnabled = true
