//go:build race

package tcpconn_test

// raceEnabled tells that sync.Pool drops items at random and allocations
// mean nothing.
const raceEnabled = true
