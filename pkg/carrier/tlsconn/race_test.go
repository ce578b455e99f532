//go:build race

package tlsconn

// raceEnabled: pools lose what is put into them at random.
const raceEnabled = true
