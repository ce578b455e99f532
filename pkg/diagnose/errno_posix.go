//go:build !windows

package diagnose

import "syscall"

// The system's error numbers by what they mean here.

func addressInUse() []syscall.Errno { return []syscall.Errno{syscall.EADDRINUSE} }

func noSuchAddress() []syscall.Errno { return []syscall.Errno{syscall.EADDRNOTAVAIL} }

func forbidden() []syscall.Errno { return []syscall.Errno{syscall.EACCES, syscall.EPERM} }

func tooManyFiles() []syscall.Errno { return []syscall.Errno{syscall.EMFILE, syscall.ENFILE} }

// resetKeepsData: what a connection received before it was reset can be read.
const resetKeepsData = true
