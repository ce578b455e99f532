package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// understandsColours has a console interpret escape sequences, which those
// before Windows 10 cannot.
func understandsColours(console *os.File) bool {
	handle := windows.Handle(console.Fd())
	var mode uint32
	if windows.GetConsoleMode(handle, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
