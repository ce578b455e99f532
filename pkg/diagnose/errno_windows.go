package diagnose

import "syscall"

// The system's error numbers by what they mean here. The names of POSIX have
// invented numbers in package syscall on Windows, which no call returns; they
// are taken too.

func addressInUse() []syscall.Errno {
	return []syscall.Errno{10048, syscall.EADDRINUSE} // WSAEADDRINUSE
}

func noSuchAddress() []syscall.Errno {
	return []syscall.Errno{10049, syscall.EADDRNOTAVAIL} // WSAEADDRNOTAVAIL
}

func forbidden() []syscall.Errno {
	return []syscall.Errno{10013, 5, syscall.EACCES, syscall.EPERM} // WSAEACCES, ERROR_ACCESS_DENIED
}

func tooManyFiles() []syscall.Errno {
	return []syscall.Errno{10024, 4, syscall.EMFILE, syscall.ENFILE} // WSAEMFILE, ERROR_TOO_MANY_OPEN_FILES
}

// resetKeepsData: what a connection received before it was reset is lost.
const resetKeepsData = false
