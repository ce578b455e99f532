package diagnose

import (
	"net/netip"
	"testing"
)

const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0438 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11111 1 0000000000000000 100 0 0 10 0
   1: 00000000:0439 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22222 1 0000000000000000 100 0 0 10 0
   2: 0100007F:043A 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 33333 1 0000000000000000 100 0 0 10 0
`

const procTCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0438 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 44444 1 0 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:0440 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 55555 1 0 100 0 0 10 0
`

func TestListenerInode(t *testing.T) {
	for _, c := range []struct {
		table, ip string
		port      uint16
		want      string
	}{
		{procTCP, "127.0.0.1", 1080, "11111"},
		{procTCP, "127.0.0.2", 1080, ""},
		{procTCP, "0.0.0.0", 1080, "11111"},
		{procTCP, "", 1080, "11111"},
		{procTCP, "::", 1080, "11111"},
		{procTCP, "127.0.0.1", 1081, "22222"},
		{procTCP, "127.0.0.1", 1082, ""}, // connected, not listening
		{procTCP6, "::1", 1080, "44444"},
		{procTCP6, "127.0.0.1", 1080, ""},
		{procTCP6, "0.0.0.0", 1080, ""}, // IPv4 only
		{procTCP6, "::", 1080, "44444"},
		{procTCP6, "127.0.0.1", 1088, "55555"},
		{"", "127.0.0.1", 1, ""},
	} {
		ip, _ := netip.ParseAddr(c.ip)
		if got := listenerInode([]byte(c.table), ip, c.port); got != c.want {
			t.Errorf("%s:%d: got %q, want %q", c.ip, c.port, got, c.want)
		}
	}
}

func FuzzListenerInode(f *testing.F) {
	f.Add([]byte(procTCP), uint16(1080))
	f.Add([]byte(procTCP6), uint16(1080))
	f.Add([]byte("x 1:2 3 0A"), uint16(2))
	f.Fuzz(func(t *testing.T, table []byte, port uint16) {
		inode := listenerInode(table, netip.Addr{}, port)
		for _, c := range inode {
			if c <= ' ' {
				t.Fatalf("%q", inode)
			}
		}
	})
}
