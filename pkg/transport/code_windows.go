package transport

import "syscall"

// The system's error numbers by what they say of a destination. The names of
// POSIX have invented numbers in package syscall here, which no call returns.

func refused() []syscall.Errno {
	return []syscall.Errno{
		10061, // WSAECONNREFUSED
		1225,  // ERROR_CONNECTION_REFUSED
		syscall.ECONNREFUSED,
	}
}

func networkUnreachable() []syscall.Errno {
	return []syscall.Errno{
		10051, // WSAENETUNREACH
		10050, // WSAENETDOWN
		1231,  // ERROR_NETWORK_UNREACHABLE
		syscall.ENETUNREACH, syscall.ENETDOWN,
	}
}

func resets() []syscall.Errno {
	return []syscall.Errno{
		10054, // WSAECONNRESET
		10053, // WSAECONNABORTED
		1236,  // ERROR_CONNECTION_ABORTED
		syscall.ECONNRESET,
	}
}

func hostUnreachable() []syscall.Errno {
	return []syscall.Errno{
		10065, // WSAEHOSTUNREACH
		10064, // WSAEHOSTDOWN
		10060, // WSAETIMEDOUT
		1232,  // ERROR_HOST_UNREACHABLE
		121,   // ERROR_SEM_TIMEOUT: a connection attempt that timed out
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN,
	}
}
