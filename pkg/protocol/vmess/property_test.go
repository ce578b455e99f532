package vmess

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"vmess-local/pkg/transport/transporttest"
)

// Whatever the sizes of writes, reads and the carrier's pieces, the same bytes
// arrive and the end behind them.
func TestPropertyAnySizes(t *testing.T) {
	s := newTestServer(t, ServerConfig{})
	all := append(styles(), rawStyles()...)
	clients := make([]*Account, len(all))
	for i, st := range all {
		clients[i] = taught(t, st.client(testID), s)
	}
	size := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(16300, 16450), rapid.IntRange(60000, 140000))
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(all)-1).Draw(t, "style")
		first := rapid.SampledFrom([]int{0, 1, 1000, firstFlight, firstFlight + 1, 90000}).Draw(t, "first")
		writes := rapid.SliceOfN(size, 0, 6).Draw(t, "writes")
		reads := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(16000, 70000)), 1, 6).Draw(t, "reads")
		pipe := rapid.SampledFrom([]int{1 << 10, 5000, 1 << 16, 1 << 20}).Draw(t, "pipe")
		down := rapid.Bool().Draw(t, "down")
		if err := carry(clients[i], s, first, writes, reads, pipe, down); err != nil {
			t.Fatalf("%s: %v", all[i].name, err)
		}
	})
}

// carry sends payload in the given pieces one way and reads it in others.
func carry(c *Account, s *Server, first int, writes, reads []int, pipe int, down bool) error {
	total := first
	for _, n := range writes {
		total += n
	}
	data := pattern(total, 1)
	near, far := transporttest.Pipe(pipe)
	defer near.Close()
	defer far.Close()
	dialled := make(chan error, 1)
	var client *Conn
	go func() {
		conn, err := (&Dialer{Client: c, Endpoint: handOver(near)}).DialStream(context.Background(), destination, data[:first])
		if err == nil {
			client = conn.(*Conn)
			_, err = client.Write(nil)
		}
		dialled <- err
	}()
	in, err := s.Accept(context.Background(), far)
	if err != nil {
		return err
	}
	got := make(chan error, 1)
	read := func(r io.Reader, want []byte) {
		for i := 0; ; i++ {
			p := make([]byte, reads[i%len(reads)])
			n, err := r.Read(p)
			if n > len(want) || !bytes.Equal(p[:n], want[:min(n, len(want))]) {
				got <- fmt.Errorf("other bytes arrived with %d to come", len(want))
				return
			}
			if want = want[n:]; err != nil {
				if err == io.EOF && len(want) > 0 {
					err = fmt.Errorf("the end came %d bytes early", len(want))
				}
				got <- err
				return
			}
		}
	}
	write := func(w *Conn, rest []byte) error {
		for _, n := range writes {
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				return fmt.Errorf("wrote %d of %d: %w", m, n, err)
			}
			rest = rest[n:]
		}
		if err := w.CloseWrite(); err != nil {
			return err
		}
		return w.Close() // bodies without end marks end here
	}
	if down {
		go func() { _, _ = io.Copy(io.Discard, in.conn) }()
		if err := <-dialled; err != nil {
			return err
		}
		go read(client, data[first:])
		if err := write(in.conn, data[first:]); err != nil {
			return err
		}
	} else {
		go read(in.conn, data)
		if err := <-dialled; err != nil {
			return err
		}
		if err := write(client, data[first:]); err != nil {
			return err
		}
	}
	if err := <-got; err != io.EOF {
		return err
	}
	return nil
}
