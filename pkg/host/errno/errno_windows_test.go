package errno

import (
	"syscall"
	"testing"
)

func TestWindowsNumbers(t *testing.T) {
	for n, class := range map[syscall.Errno]string{
		10048: "IsAddrInUse", 10049: "IsAddrNotAvailable", 10013: "IsPermission", 5: "IsPermission",
		10061: "IsConnRefused", 1225: "IsConnRefused", 10054: "IsConnReset", 10053: "IsConnReset", 64: "IsConnReset", 1236: "IsConnReset",
		10051: "IsNetUnreachable", 10050: "IsNetUnreachable", 1231: "IsNetUnreachable",
		10065: "IsHostUnreachable", 10064: "IsHostUnreachable", 1232: "IsHostUnreachable", 10060: "IsTimeout", 121: "IsTimeout",
		10024: "IsTooManyFiles", 4: "IsTooManyFiles", 10040: "IsMessageSize", 10022: "",
	} {
		checkClass(t, n, class)
	}
	for _, n := range []syscall.Errno{10024, 10055, 1450, 8, 10054} {
		if !IsTransientAccept(system(n)) {
			t.Errorf("accept does not go on after %v", n)
		}
	}
	for _, n := range []syscall.Errno{10040, 10052, 10054, 10061, 10065} {
		if !IsTransientDatagram(system(n)) {
			t.Errorf("a UDP socket does not survive %v", n)
		}
	}
}
