package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestHealthyEndingsAreQuiet: however servers of every kind end a tunnel behind
// a whole answer, nothing has failed: one at a time, many at once, and with an
// application that still says goodbye when the server has gone, as TLS does.
func TestHealthyEndingsAreQuiet(t *testing.T) {
	t.Parallel()
	for name, ending := range map[string]fakeEnding{
		"close frame":                  endByClose,
		"bare FIN":                     endByFIN,
		"reset":                        endByReset,
		"end mark and close frame":     endMarked,
		"end mark, close frame, reset": endMarkedByReset,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := remoteAt(t, fakeServer(t, ending))
			r.Security, r.GlobalPadding = "aes-128-gcm", false
			l := newLab(t, labSetup{remote: r})
			ask := func(n int64) {
				if err := askThenSay(l.addr, n); err != nil {
					t.Error(err)
				}
			}
			for range 10 {
				ask(1000)
			}
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					for range 8 {
						ask([]int64{1, 40, 5000, 20_000}[i%4])
					}
				})
			}
			all.Wait()
			time.Sleep(time.Second) // failures of one moment are gathered, and then told
			l.wantQuiet(t)
		})
	}
}

// askThenSay asks for n bytes and, once they are there, says something that
// nobody hears any more.
func askThenSay(proxyAddr string, n int64) error {
	c, err := dialVia(proxyAddr, "example.com:80") // a fake server answers itself
	if err != nil {
		return err
	}
	defer c.Close()
	seed := rand.Uint64()
	if _, err := io.WriteString(c, shortRequest(seed, n)); err != nil {
		return err
	}
	want, err := io.ReadAll(pattern(seed, n))
	if err != nil {
		return err
	}
	got := make([]byte, n)
	m, err := io.ReadFull(c, got)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("not what was sent")
	}
	if err != nil {
		return fmt.Errorf("%d of %d bytes came: %w", m, n, err)
	}
	for range 3 {
		if _, err := io.WriteString(c, "goodbye"); err != nil {
			break
		}
	}
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	return nil
}
