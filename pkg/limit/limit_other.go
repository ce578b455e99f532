//go:build !unix

package limit

func openFiles() (int, bool) { return 0, false }
