//go:build !race

package tcpconn_test

const raceEnabled = false
