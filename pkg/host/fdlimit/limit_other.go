//go:build !unix

package fdlimit

func openFiles() (int, bool) { return 0, false }
