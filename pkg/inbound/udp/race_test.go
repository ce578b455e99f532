//go:build race

package udp

// raceEnabled tells that the load is to be smaller and allocations mean nothing.
const raceEnabled = true
