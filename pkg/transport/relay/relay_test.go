package relay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmess-local/pkg/transport"
	"vmess-local/pkg/transport/relay"
	"vmess-local/pkg/transport/tcpconn"
	"vmess-local/pkg/transport/transporttest"
)

func overCarriers(t *testing.T, f func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn))) {
	for name, pair := range carriers {
		t.Run(name, func(t *testing.T) { f(t, pair) })
	}
}

func TestRelayHalfCloseUp(t *testing.T) {
	overCarriers(t, func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn)) {
		d := start(t, relay.Relay{}, pair)
		mustWrite(t, d.app, "question")
		if err := d.app.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, d.far, "question")
		mustEnd(t, d.far)
		// Only now, behind the end of the question, does the answer start.
		mustWrite(t, d.far, "answer")
		mustRead(t, d.app, "answer")
		mustWrite(t, d.far, " more")
		if err := d.far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, d.app, " more")
		mustEnd(t, d.app)
		if o := <-d.done; o.Up != 8 || o.Down != 11 || o.Err() != nil {
			t.Fatalf("ended as %+v", o)
		}
	})
}

func TestRelayHalfCloseDown(t *testing.T) {
	overCarriers(t, func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn)) {
		d := start(t, relay.Relay{}, pair)
		mustWrite(t, d.far, "greeting")
		if err := d.far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, d.app, "greeting")
		mustEnd(t, d.app)
		mustWrite(t, d.app, "upload behind the end")
		mustRead(t, d.far, "upload behind the end")
		if err := d.app.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustEnd(t, d.far)
		if o := <-d.done; o.Up != 21 || o.Down != 8 || o.Err() != nil {
			t.Fatalf("ended as %+v", o)
		}
	})
}

// TestRelayAsStream holds a relay against the contract of the streams that it
// connects.
func TestRelayAsStream(t *testing.T) {
	for name, pair := range carriers {
		t.Run(name, func(t *testing.T) {
			transporttest.TestStream(t, func(t *testing.T) (a, b transport.StreamConn) {
				d := start(t, relay.Relay{}, pair)
				return d.app, d.far
			})
		})
	}
}

func TestRelayCarriesBothWays(t *testing.T) {
	size := 4 << 20
	if raceEnabled {
		size = 1 << 20
	}
	overCarriers(t, func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn)) {
		var up, down atomic.Int64
		up.Store(5) // the caller's counters are added to
		d := start(t, relay.Relay{Up: &up, Down: &down}, pair)
		var all sync.WaitGroup
		for i, end := range []struct{ from, to transport.StreamConn }{{d.app, d.far}, {d.far, d.app}} {
			data := make([]byte, size+i)
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			want := sha256.Sum256(data)
			all.Go(func() {
				if _, err := io.Copy(struct{ io.Writer }{end.from}, bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
				_ = end.from.CloseWrite()
			})
			all.Go(func() {
				h := sha256.New()
				if n, err := io.Copy(h, end.to); err != nil || n != int64(len(data)) || !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("%d bytes of %d arrived, %v, or they are others", n, len(data), err)
				}
			})
		}
		all.Wait()
		o := <-d.done
		if o.Up != int64(size) || o.Down != int64(size)+1 || o.Err() != nil {
			t.Errorf("ended as %+v", o)
		}
		if up.Load() != o.Up+5 || down.Load() != o.Down {
			t.Errorf("counted %d up, %d down for %+v", up.Load(), down.Load(), o)
		}
	})
}

// A reset on one side must be one on the other: an end that is none would
// pass a cut transfer off as whole.
func TestRelayReset(t *testing.T) {
	overCarriers(t, func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn)) {
		for _, c := range []struct {
			name     string
			pick     func(d *ride) (resets, sees transport.StreamConn)
			side     relay.Side
			upFailed bool
		}{
			{"application", func(d *ride) (a, b transport.StreamConn) { return d.app, d.far }, relay.Local, true},
			{"far end", func(d *ride) (a, b transport.StreamConn) { return d.far, d.app }, relay.Remote, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				d := start(t, relay.Relay{}, pair)
				resets, sees := c.pick(d)
				mustWrite(t, resets, "x")
				mustRead(t, sees, "x")
				if err := transport.Reset(resets); err != nil {
					t.Fatal(err)
				}
				if _, err := sees.Read(make([]byte, 1)); !isReset(err) {
					t.Errorf("the other side read %v, want a reset", err)
				}
				o := <-d.done
				var side *relay.Error
				if !errors.As(o.Err(), &side) || side.Side != c.side || side.Op != "read" || !isReset(o.Err()) {
					t.Errorf("ended as %v", o.Err())
				}
				if (o.UpErr != nil) != c.upFailed || (o.DownErr != nil) == c.upFailed {
					t.Errorf("up %v, down %v", o.UpErr, o.DownErr)
				}
			})
		}
	})
}

func isReset(err error) bool {
	return errors.Is(err, transporttest.ErrReset) || errors.Is(err, syscall.ECONNRESET)
}

func TestRelayCancel(t *testing.T) {
	overCarriers(t, func(t *testing.T, pair func(t testing.TB) (a, b transport.StreamConn)) {
		d := start(t, relay.Relay{}, pair)
		mustWrite(t, d.app, "x")
		mustRead(t, d.far, "x")
		cause := errors.New("the tab was closed")
		d.cancel(cause)
		o := <-d.done
		if !errors.Is(o.Err(), cause) || o.Up != 1 {
			t.Errorf("ended as %+v", o)
		}
		for name, c := range map[string]net.Conn{"application": d.app, "far end": d.far} {
			if _, err := c.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("%s read %v, want a reset", name, err)
			}
		}
	})
}

func TestRelayCancelledBefore(t *testing.T) {
	app, local := transporttest.Pipe(1)
	remote, far := transporttest.Pipe(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := (relay.Relay{}).Run(ctx, local, remote); !errors.Is(o.Err(), context.Canceled) {
		t.Errorf("ended as %+v", o)
	}
	for _, c := range []net.Conn{app, far} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a stream is still open")
		}
	}
}

// A slow stream is one whose reset takes time.
type slowReset struct {
	*transporttest.Conn
	resetting chan struct{}
	proceed   chan struct{}
	reset     atomic.Bool
}

func (s *slowReset) Reset() error {
	close(s.resetting)
	<-s.proceed
	s.reset.Store(true)
	return s.Conn.Reset()
}

// When Run returns, both streams are closed, whoever closes them.
func TestRelayReturnsWithBothClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, local := transporttest.Pipe(1)
		remote, far := transporttest.Pipe(1)
		slow := &slowReset{Conn: remote, resetting: make(chan struct{}), proceed: make(chan struct{})}
		d := startOn(t, relay.Relay{}, app, local, slow, far)
		synctest.Wait()
		d.cancel(nil)
		<-slow.resetting
		// Both directions come to their ends on their own while the reset of
		// the cancelled relay is still under way.
		_ = far.Close()
		synctest.Wait()
		select {
		case <-d.done:
			t.Error("Run returned before it had closed both streams")
		default:
		}
		close(slow.proceed)
		<-d.done
		if !slow.reset.Load() {
			t.Error("the stream was not reset")
		}
	})
}

func TestRelayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, relay.Relay{Idle: time.Minute}, pipePair)
		begin := time.Now()
		for i := range 5 {
			time.Sleep(50 * time.Second) // each direction alone keeps both alive
			from, to := d.app, d.far
			if i%2 == 1 {
				from, to = to, from
			}
			mustWrite(t, from, "x")
			mustRead(t, to, "x")
		}
		o := <-d.done
		if !errors.Is(o.Err(), relay.ErrIdle) {
			t.Errorf("ended as %+v", o)
		}
		if took := time.Since(begin); took != 250*time.Second+time.Minute {
			t.Errorf("idle after %v", took)
		}
		for name, c := range map[string]net.Conn{"application": d.app, "far end": d.far} {
			if _, err := c.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("%s read %v, want a reset", name, err)
			}
		}
	})
}

// TestRelayQuiet: the outcome tells for how long nothing moved, either way.
func TestRelayQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, relay.Relay{}, pipePair)
		for _, pair := range [][2]transport.StreamConn{{d.app, d.far}, {d.far, d.app}} {
			time.Sleep(10 * time.Second)
			mustWrite(t, pair[0], "x")
			mustRead(t, pair[1], "x")
		}
		time.Sleep(7 * time.Second)
		if err := transport.Reset(d.far); err != nil {
			t.Fatal(err)
		}
		if o := <-d.done; o.IdleFor != 7*time.Second || o.Err() == nil {
			t.Errorf("%+v, want it quiet for 7 s", o)
		}
	})
}

func TestRelayWithoutIdleLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, relay.Relay{}, pipePair)
		time.Sleep(10000 * time.Hour)
		mustWrite(t, d.app, "x")
		mustRead(t, d.far, "x")
	})
}

// A mute stream takes no bytes, or no end; what it says is still heard.
type mute struct {
	*transporttest.Conn
	writeErr, endErr error
}

func (m *mute) Write(p []byte) (int, error) {
	if m.writeErr != nil {
		return 0, m.writeErr
	}
	return m.Conn.Write(p)
}

func (m *mute) CloseWrite() error {
	if m.endErr != nil {
		return m.endErr
	}
	return m.Conn.CloseWrite()
}

// A server that stopped reading may have answered before: the answer arrives
// whole, and nobody waits for its rest for ever.
func TestRelayTail(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		mute mute
		op   string
	}{
		{"write", mute{writeErr: broken}, "write"},
		{"end", mute{endErr: broken}, "end"},
	} {
		provoke := func(t *testing.T, r relay.Relay) *ride {
			app, local := pipePair(t)
			remote, far := transporttest.Pipe(1 << 16)
			m := c.mute
			m.Conn = remote
			d := startOn(t, r, app, local, &m, far)
			mustWrite(t, d.app, "request")
			if c.op == "end" {
				mustRead(t, d.far, "request")
			}
			_ = d.app.CloseWrite()
			return d
		}
		failedUp := func(t *testing.T, err error) {
			t.Helper()
			var side *relay.Error
			if !errors.As(err, &side) || side.Side != relay.Remote || side.Op != c.op || !errors.Is(err, broken) {
				t.Errorf("the upload ended with %v", err)
			}
		}
		t.Run(c.name+"/delivered", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := provoke(t, relay.Relay{})
				for range 10 { // longer than the limit in all, never silent for so long
					time.Sleep(50 * time.Second)
					mustWrite(t, d.far, "ans")
					mustRead(t, d.app, "ans")
				}
				_ = d.far.CloseWrite()
				mustEnd(t, d.app)
				o := <-d.done
				failedUp(t, o.UpErr)
				if o.Down != 30 || o.DownErr != nil {
					t.Errorf("ended as %+v", o)
				}
			})
		})
		for _, idle := range []time.Duration{0, time.Hour, 10 * time.Second} {
			want := time.Minute
			if idle == 10*time.Second {
				want = idle
			}
			t.Run(fmt.Sprintf("%s/stalled/idle %v", c.name, idle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begin := time.Now()
					d := provoke(t, relay.Relay{Idle: idle})
					o := <-d.done
					failedUp(t, o.UpErr)
					if took := time.Since(begin); took != want || !errors.Is(o.DownErr, relay.ErrIdle) {
						t.Errorf("ended after %v as %+v, want %v", took, o, want)
					}
				})
			})
		}
	}
}

// A far end that reset while its answer is in flight.
func TestRelayRealWriteErrorStillDelivers(t *testing.T) {
	d := start(t, relay.Relay{}, streamPair)
	mustWrite(t, d.far, "too large; go away")
	if err := d.far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	mustRead(t, d.app, "too large; go away")
	mustEnd(t, d.app)
	_ = d.far.Close() // unread input makes it a reset
	for {
		if _, err := d.app.Write(make([]byte, 1<<16)); err != nil {
			break
		}
	}
	var side *relay.Error
	o := <-d.done
	if !errors.As(o.UpErr, &side) || side.Op != "write" || side.Side != relay.Remote || o.DownErr != nil {
		t.Errorf("ended as %+v", o)
	}
	if err := o.Err(); err != nil {
		t.Errorf("the answer ended in order, and it failed with %v", err)
	}
}

// An unmarking stream does not mark its ends.
type unmarking struct{ *transporttest.Conn }

func (c unmarking) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, transporttest.ErrReset) {
		err = &transport.AmbiguousEnd{Err: err}
	}
	return n, err
}

// TestRelayResetBehindAnswer: a reset right behind the last byte of a far end that
// does not mark its ends is passed on, and is no failure; later it is.
func TestRelayResetBehindAnswer(t *testing.T) {
	for quiet, fails := range map[time.Duration]bool{0: false, 900 * time.Millisecond: false, 1100 * time.Millisecond: true} {
		synctest.Test(t, func(t *testing.T) {
			app, local := pipePair(t)
			remote, far := transporttest.Pipe(1 << 16)
			d := startOn(t, relay.Relay{}, app, local, unmarking{remote}, far)
			mustWrite(t, d.far, "answer")
			mustRead(t, d.app, "answer")
			time.Sleep(quiet)
			if err := transport.Reset(d.far); err != nil {
				t.Fatal(err)
			}
			if _, err := d.app.Read(make([]byte, 1)); !isReset(err) {
				t.Errorf("the application read %v, want a reset", err)
			}
			if o := <-d.done; (o.Err() != nil) != fails || o.Down != 6 {
				t.Errorf("after %v of silence: %+v", quiet, o)
			}
		})
	}
}

// A patient stream knows when its peer is gone for good.
type patient struct {
	*transporttest.Conn
	waits  chan struct{} // receives when WaitPeerClose begins
	gone   chan struct{}
	once   sync.Once
	unsure bool // WaitPeerClose cannot tell
	broken atomic.Bool
}

func newPatient(c *transporttest.Conn) *patient {
	return &patient{Conn: c, waits: make(chan struct{}, 2), gone: make(chan struct{})}
}

func (p *patient) WaitPeerClose() bool {
	p.waits <- struct{}{}
	<-p.gone
	return !p.unsure
}

func (p *patient) ResetByPeer() bool { return p.broken.Load() }

func (p *patient) leave() { p.once.Do(func() { close(p.gone) }) }

func (p *patient) Close() error {
	p.leave()
	return p.Conn.Close()
}

func (p *patient) Reset() error {
	p.leave()
	return p.Conn.Reset()
}

func patientRide(t *testing.T) (*ride, *patient) {
	app, local := pipePair(t)
	remote, far := transporttest.Pipe(1 << 16)
	p := newPatient(remote)
	return startOn(t, relay.Relay{}, app, local, p, far), p
}

func TestRelayPeerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := patientRide(t)
		_ = d.far.CloseWrite()
		mustEnd(t, d.app)
		<-p.waits
		mustWrite(t, d.app, "still read") // the peer is there
		mustRead(t, d.far, "still read")
		p.leave()
		if o := <-d.done; o.Err() != nil || o.Up != 10 {
			t.Errorf("ended as %+v", o)
		}
		if _, err := d.app.Write([]byte("x")); err == nil {
			t.Error("the application may write on, with nobody there to read it")
		}
	})
}

// A session is over when both directions are, whatever the peer does.
func TestRelayUploadEndsBesidePeerWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := patientRide(t)
		_ = d.far.CloseWrite()
		mustEnd(t, d.app)
		<-p.waits
		mustWrite(t, d.app, "last words")
		_ = d.app.CloseWrite()
		if o := <-d.done; o.Err() != nil || o.Up != 10 {
			t.Errorf("ended as %+v", o)
		}
		mustRead(t, d.far, "last words")
		mustEnd(t, d.far)
	})
}

func TestRelayUploadFailsBesidePeerWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, local := pipePair(t)
		remote, far := transporttest.Pipe(1 << 16)
		p := newPatient(remote)
		d := startOn(t, relay.Relay{}, app, local, &mutePatient{p}, far)
		_ = d.far.CloseWrite()
		mustEnd(t, d.app)
		<-p.waits
		begin := time.Now()
		mustWrite(t, d.app, "x")
		if o := <-d.done; !errors.Is(o.UpErr, errMute) || o.DownErr != nil || time.Since(begin) != 0 {
			t.Errorf("ended as %+v after %v", o, time.Since(begin))
		}
	})
}

type mutePatient struct{ *patient }

var errMute = errors.New("takes no bytes")

func (m *mutePatient) Write([]byte) (int, error) { return 0, errMute }

func TestRelayNoPeerWaitBehindUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := patientRide(t)
		_ = d.app.CloseWrite()
		mustEnd(t, d.far)
		synctest.Wait()
		mustWrite(t, d.far, "answer")
		_ = d.far.CloseWrite()
		mustRead(t, d.app, "answer")
		mustEnd(t, d.app)
		if o := <-d.done; o.Err() != nil {
			t.Errorf("ended as %+v", o)
		}
		if len(p.waits) != 0 {
			t.Error("waited for a peer that is not needed any more")
		}
	})
}

// patientApp is a relay whose local side is a tunnel.
func patientApp(t *testing.T, r relay.Relay) (*ride, *patient) {
	app, local := transporttest.Pipe(1 << 16)
	remote, far := pipePair(t)
	p := newPatient(local)
	return startOn(t, r, app, p, remote, far), p
}

// A client that has ended its request and leaves takes the destination's
// connection with it, though nothing is said on that.
func TestRelayLocalGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := patientApp(t, relay.Relay{Idle: time.Hour})
		mustWrite(t, d.app, "question")
		_ = d.app.CloseWrite()
		<-p.waits
		mustRead(t, d.far, "question")
		mustEnd(t, d.far)
		mustWrite(t, d.far, "part")
		mustRead(t, d.app, "part")
		left := time.Now()
		p.leave()
		if o := <-d.done; o.Err() != nil || o.Up != 8 || o.Down != 4 || time.Since(left) != 0 {
			t.Errorf("ended as %+v after %v", o, time.Since(left))
		}
		if _, err := d.far.Write([]byte("x")); err == nil {
			t.Error("the destination's connection is still open")
		}
	})
}

// A client that may read on though its connection has ended that way has its
// answer; once it is known to be gone, nobody is waited for.
func TestRelayLocalPerhapsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p := patientApp(t, relay.Relay{Idle: 10 * time.Hour})
		p.unsure = true
		_ = d.app.CloseWrite()
		p.leave()
		time.Sleep(time.Hour)
		mustWrite(t, d.far, "late")
		mustRead(t, d.app, "late")
		p.broken.Store(true)
		broke := time.Now()
		if o := <-d.done; o.Err() != nil || time.Since(broke) > 2*time.Second {
			t.Errorf("ended as %+v after %v", o, time.Since(broke))
		}
	})
}

// A tunnel whose uploads nobody takes is not read for nothing, and its answer
// arrives.
func TestRelayCutShortIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, local := transporttest.Pipe(1 << 16)
		remote, far := transporttest.Pipe(1 << 16)
		p := newPatient(local)
		d := startOn(t, relay.Relay{}, app, p, &mute{Conn: remote, writeErr: errMute}, far)
		mustWrite(t, d.app, "too large")
		synctest.Wait()
		mustWrite(t, d.far, "go away")
		_ = d.far.CloseWrite()
		mustRead(t, d.app, "go away")
		if o := <-d.done; !errors.Is(o.UpErr, errMute) || o.DownErr != nil || len(p.waits) > 0 {
			t.Errorf("ended as %+v; waited %d times", o, len(p.waits))
		}
	})
}

// A tunnel is a stream over one that has no half close: a byte says the end, and
// what comes behind it are pings.
type tunnel struct{ transport.StreamConn }

func (c tunnel) Read(p []byte) (int, error) {
	n, err := c.StreamConn.Read(p[:1])
	if n == 1 && p[0] == '!' {
		return 0, io.EOF
	}
	return n, err
}

func (c tunnel) CloseWrite() error { _, err := c.StreamConn.Write([]byte("!")); return err }

func (c tunnel) WaitPeerClose() bool {
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{c.StreamConn})
	return true
}

func (c tunnel) Reset() error { return transport.Reset(c.StreamConn) }

func (c tunnel) SendState() transport.SendState { return transport.SendStateOf(c.StreamConn) }

// A ping that comes behind the answer's end does not take away what of the answer
// is still under way.
func TestRelayPingBehindAnswer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the system does not tell what is under way")
	}
	const size = 1 << 20
	near, local := tcpPair(t)
	_ = near.SetReadBuffer(32 << 10)
	_ = local.SetWriteBuffer(size)
	remote, far := streamPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan relay.Outcome, 1)
	go func() { done <- relay.Relay{}.Run(ctx, tunnel{tcpconn.New(local)}, remote) }()
	mustWrite(t, near, "question!")
	mustRead(t, far, "question")
	mustEnd(t, far)
	go func() {
		_, _ = far.Write(make([]byte, size))
		_ = far.CloseWrite()
	}()
	got := 0
	for p := make([]byte, 16<<10); got < size+1; time.Sleep(time.Millisecond) { // a slow reader
		n, err := near.Read(p)
		if got += n; err != nil {
			t.Fatalf("after %d bytes of %d: %v", got, size, err)
		}
		if _, err := near.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
	}
	_ = near.Close()
	if o := <-done; o.Err() != nil || o.Down != size {
		t.Errorf("ended as %+v", o)
	}
}

// whole cannot end one direction alone.
type whole struct{ *transporttest.Conn }

func (whole) CloseWrite() error { return fmt.Errorf("half close: %w", errors.ErrUnsupported) }

func TestRelayWithoutHalfClose(t *testing.T) {
	t.Run("local", func(t *testing.T) { // the answer's end is told by closing
		app, local := transporttest.Pipe(1 << 16)
		remote, far := transporttest.Pipe(1 << 16)
		d := startOn(t, relay.Relay{}, app, whole{local}, remote, far)
		mustWrite(t, far, "answer")
		_ = far.CloseWrite()
		mustRead(t, app, "answer")
		mustEnd(t, app)
		if o := <-d.done; o.Err() != nil {
			t.Errorf("ended as %+v", o)
		}
	})
	t.Run("remote", func(t *testing.T) { // the question's end cannot be told; the answer comes all the same
		app, local := transporttest.Pipe(1 << 16)
		remote, far := transporttest.Pipe(1 << 16)
		d := startOn(t, relay.Relay{}, app, local, whole{remote}, far)
		mustWrite(t, app, "question")
		_ = app.CloseWrite()
		mustRead(t, far, "question")
		mustWrite(t, far, "answer")
		_ = far.CloseWrite()
		mustRead(t, app, "answer")
		mustEnd(t, app)
		if o := <-d.done; o.Err() != nil {
			t.Errorf("ended as %+v", o)
		}
	})
}

// Streams that are silent cost no buffer.
func TestRelayIdleHoldsNoBuffer(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sockets cannot be waited for without a buffer here")
	}
	const streams = 40
	var rides []*ride
	for range streams {
		d := start(t, relay.Relay{}, streamPair)
		mustWrite(t, d.app, "x") // each direction had a buffer once
		mustRead(t, d.far, "x")
		mustWrite(t, d.far, "y")
		mustRead(t, d.app, "y")
		rides = append(rides, d)
	}
	// What the relays still hold is on the heap after the pool was emptied.
	var m runtime.MemStats
	deadline := time.Now().Add(5 * time.Second)
	for {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapAlloc < streams*transport.BufferSize {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d idle streams hold %d KiB", streams, m.HeapAlloc>>10)
		}
		runtime.Gosched()
	}
	runtime.KeepAlive(rides)
}

// endless gives n chunks and takes any number.
type endless struct {
	transporttest.Conn
	left  int
	chunk int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	e.left--
	return e.chunk, nil
}
func (e *endless) WaitRead() error             { return nil }
func (e *endless) Write(p []byte) (int, error) { return len(p), nil }
func (e *endless) CloseWrite() error           { return nil }
func (e *endless) Close() error                { return nil }
func (e *endless) Reset() error                { return nil }

func TestRelayAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, chunk := range []int{100, 16 << 10, transport.BufferSize} {
		const chunks = 10000
		n := testing.AllocsPerRun(3, func() {
			o := relay.Relay{Idle: time.Hour}.Run(context.Background(), &endless{left: chunks, chunk: chunk}, &endless{left: chunks, chunk: chunk})
			if o.Up != int64(chunks*chunk) || o.Down != o.Up {
				t.Fatalf("carried %+v", o)
			}
		})
		if n > 100 { // for the whole relay; the pool may lose a few to the collector
			t.Errorf("%d chunks of %d bytes: %v allocations", 2*chunks, chunk, n)
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	for name, pair := range carriers {
		for _, size := range []int{2 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				d := start(b, relay.Relay{Idle: time.Hour}, pair)
				go func() {
					p := make([]byte, size)
					for range b.N {
						if _, err := d.app.Write(p); err != nil {
							b.Error(err)
							break
						}
					}
					_ = d.app.CloseWrite()
				}()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				p := make([]byte, 128<<10)
				for {
					if _, err := d.far.Read(p); err != nil {
						break
					}
				}
				b.StopTimer()
				_ = d.far.CloseWrite()
				<-d.done
			})
		}
	}
}

// A marking stream can be told that the remote side broke off.
type marking struct {
	*transporttest.Conn
	understood bool
	marked     atomic.Bool
}

func (c *marking) MarkBroken() bool {
	c.marked.Store(true)
	return c.understood
}

func (c *marking) WaitPeerClose() (gone bool) {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c.Conn})
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestRelayMarksBreak: a local side that can say so is told that the remote side
// broke off, and is read until it leaves, or has had its time; nothing resets it
// meanwhile. One that does not understand is reset.
func TestRelayMarksBreak(t *testing.T) {
	for name, tt := range map[string]struct {
		understood, leaves bool
		takes              time.Duration
	}{
		"it leaves":              {understood: true, leaves: true, takes: time.Second},
		"it stays":               {understood: true, takes: 10 * time.Second},
		"it does not understand": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, local := transporttest.Pipe(1 << 10)
				remote, far := transporttest.Pipe(1 << 16)
				m := &marking{Conn: local, understood: tt.understood}
				d := startOn(t, relay.Relay{}, app, m, remote, far)
				mustWrite(t, d.far, "answer")
				mustRead(t, d.app, "answer")
				begin := time.Now()
				if err := transport.Reset(d.far); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if tt.understood {
					for range 10 { // more than fits: it is read
						mustWrite(t, app, strings.Repeat("x", 1<<10))
					}
					if tt.leaves {
						time.Sleep(time.Second)
						_ = app.Reset()
					}
				}
				o := <-d.done
				var side *relay.Error
				if !errors.As(o.Err(), &side) || side.Side != relay.Remote || o.UpErr != nil || !m.marked.Load() {
					t.Errorf("ended as %+v, marked: %v", o, m.marked.Load())
				}
				if took := time.Since(begin); took != tt.takes {
					t.Errorf("it took %v, want %v", took, tt.takes)
				}
				if _, err := app.Read(make([]byte, 1)); tt.understood && !tt.leaves && err != io.EOF || !tt.understood && !isReset(err) {
					t.Errorf("the local side then read %v", err)
				}
			})
		})
	}
}
