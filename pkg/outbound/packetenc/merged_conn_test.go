package packetenc

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"vmess-local/pkg/transport/netaddr"
	"vmess-local/pkg/transport/transporttest"
)

func TestMergedConn(t *testing.T) {
	transporttest.TestPackets(t, func(*testing.T) transporttest.Association {
		mainNear, mainFar := transporttest.PacketPipe(64)
		otherNear, otherFar := transporttest.PacketPipe(64)
		return transporttest.Association{
			Near:    newMergedConn(mainNear, otherNear, netaddr.Addr.IsName),
			Far:     newMergedConn(mainFar, otherFar, netaddr.Addr.IsName),
			Remotes: []netaddr.Addr{anywhere, named},
		}
	})
}

// TestMergedConnEndsWithMain holds that the end of the main connection, and not
// that of the other, ends both.
func TestMergedConnEndsWithMain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		main, mainFar := transporttest.PacketPipe(1)
		other, otherFar := transporttest.PacketPipe(1)
		c := newMergedConn(main, other, netaddr.Addr.IsName)
		defer c.Close()
		_ = otherFar.Close()
		synctest.Wait()
		if err := mainFar.WritePacket([]byte("x"), anywhere); err != nil {
			t.Fatal(err)
		}
		if n, from, err := c.ReadPacket(make([]byte, 8)); n != 1 || from != anywhere || err != nil {
			t.Fatalf("read %d bytes from %v, %v, after the other's end", n, from, err)
		}
		_ = mainFar.Close()
		if _, _, err := c.ReadPacket(make([]byte, 8)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end of the main connection: %v", err)
		}
	})
}
