package transport_test

import (
	"syscall"
	"testing"

	"vmess-local/pkg/transport"
)

func TestCodeOfWinsock(t *testing.T) {
	for errno, want := range map[syscall.Errno]transport.Code{
		10061: transport.CodeConnectionRefused, 10051: transport.CodeNetworkUnreachable,
		10065: transport.CodeHostUnreachable, 10060: transport.CodeHostUnreachable, 10054: transport.CodeGeneral,
	} {
		if got := transport.CodeOf(dialError(errno)); got != want {
			t.Errorf("CodeOf(%d) = %d, want %d", errno, got, want)
		}
	}
}
