//go:build unix

package e2e

import (
	"os"
	"syscall"
)

// stopProcess has a process stand still.
func stopProcess(p *os.Process) { _ = p.Signal(syscall.SIGSTOP) }

// continueProcess has it go on.
func continueProcess(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }
