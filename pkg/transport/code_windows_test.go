package transport_test

import (
	"syscall"
	"testing"

	"vmess-local/pkg/transport"
)

// Winsock's numbers are not those that package syscall invented for the names
// of POSIX.
func TestCodeOfWinsock(t *testing.T) {
	for errno, want := range map[syscall.Errno]transport.Code{
		10061: transport.CodeConnectionRefused,
		1225:  transport.CodeConnectionRefused,
		10051: transport.CodeNetworkUnreachable,
		10050: transport.CodeNetworkUnreachable,
		1231:  transport.CodeNetworkUnreachable,
		10065: transport.CodeHostUnreachable,
		10064: transport.CodeHostUnreachable,
		10060: transport.CodeHostUnreachable,
		1232:  transport.CodeHostUnreachable,
		10054: transport.CodeGeneral,
	} {
		if got := transport.CodeOf(dialError(errno)); got != want {
			t.Errorf("CodeOf(%d) = %d, want %d", errno, got, want)
		}
	}
}
