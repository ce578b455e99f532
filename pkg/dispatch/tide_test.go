package dispatch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		freed := 0
		td := &tide{free: func() { freed++ }}
		change := func(up, down int) {
			for range up {
				td.rise()
			}
			for range down {
				td.fall()
			}
			time.Sleep(ebbWait + time.Second)
			synctest.Wait()
		}
		change(ebb-1, ebb-1)
		if freed != 0 {
			t.Errorf("given back %d times after a few", freed)
		}
		change(5000, 4000)
		if freed != 1 {
			t.Errorf("given back %d times after a crowd, want once", freed)
		}
		change(100, 100)
		if freed != 1 {
			t.Errorf("given back %d times after a few more", freed)
		}
		change(0, 1000)
		if freed != 2 {
			t.Errorf("given back %d times in the end, want twice", freed)
		}
	})
}
