//go:build !windows

package cli

import "os"

// understandsColours reports whether a terminal takes escape sequences: all do
// but those that TERM calls dumb.
func understandsColours(*os.File) bool { return true }
