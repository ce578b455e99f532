package socks

import (
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// A requestBody is a request's body on its way to an origin. Its client may
// take its time as long as something moves.
type requestBody struct {
	in      *httpRequest
	conn    *httpConn
	idle    time.Duration
	expects bool        // its client asked for a 100
	trailer http.Header // of the request that goes out; filled at the end
	wanted  func()      // its client waits for a 100, which this sends; may be nil
	ended   func()      // all was read; may be nil

	mu       sync.Mutex
	free     sync.Cond // signals that reading has become false
	deadline time.Time
	reading  bool
	asked    bool  // its client waits for a 100, which has not been sent
	finished bool  // no longer for an origin
	over     bool  // read to its end
	err      error // why it was not
}

func newRequestBody(r *httpRequest, conn *httpConn, idle time.Duration) *requestBody {
	b := &requestBody{in: r, conn: conn, idle: idle, over: r.Body == http.NoBody}
	b.expects = !b.over && r.ProtoAtLeast(1, 1) && httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue")
	b.asked = b.expects
	if len(r.TransferEncoding) > 0 {
		b.trailer = make(http.Header)
		for name := range r.Trailer {
			b.trailer[name] = nil
		}
	}
	b.free.L = &b.mu
	return b
}

// Read is called by http.Transport, which may outlive the request.
func (b *requestBody) Read(p []byte) (int, error) {
	asked, err := b.begin()
	if err != nil {
		return 0, err
	}
	if asked {
		b.wanted()
	}
	n, err := b.in.Body.Read(p)
	b.end(err)
	return n, err
}

// Close is called by http.Transport, for which there is no more of it then.
func (b *requestBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	return nil
}

// begin claims the reader's part and extends the deadline when half of it is used.
// It reports whether the client must get its 100 first.
func (b *requestBody) begin() (asked bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over:
		return false, io.EOF
	case b.finished:
		return false, http.ErrBodyReadAfterClose
	}
	asked, b.asked = b.asked, false
	if now := time.Now(); b.deadline.Sub(now) < b.idle {
		b.deadline = now.Add(b.idle + b.idle/8)
		_ = b.conn.SetReadDeadline(b.deadline)
	}
	b.reading = true
	return asked, nil
}

func (b *requestBody) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.free.Broadcast()
	switch {
	case err == io.EOF:
		b.over = true
		for name, values := range b.in.Trailer {
			if b.trailer != nil && httpguts.ValidTrailerHeader(name) {
				b.trailer[name] = values
			}
		}
		_ = b.conn.SetReadDeadline(time.Time{}) // the answer may take longer
		if b.ended != nil && !b.finished {
			b.ended()
		}
	case err != nil && b.err == nil:
		b.err = err
	}
}

// failed returns why the body could not be read to its end, nil where it could or
// was not tried.
func (b *requestBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// awaits100 reports whether the client may be waiting for a 100, or have waited, so
// that what it sends behind the answer is a body or another request.
func (b *requestBody) awaits100() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.expects && !b.over
}

// finish takes what is left of a body whose request was answered, for so long
// at most. It reports whether that was all: what comes next may be no request.
func (b *requestBody) finish(within time.Duration) bool {
	if !b.takeOver(within) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.over
	}
	_, err := io.CopyN(io.Discard, b.in.Body, maxUnread)
	b.end(err)
	_ = b.conn.SetReadDeadline(time.Time{})
	return err == io.EOF
}

// takeOver waits for http.Transport's last read and makes finish the reader. It
// reports whether there is something left that finish should read.
func (b *requestBody) takeOver(within time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
	if b.over {
		return false
	}
	deadline := time.Now().Add(within)
	if b.expects {
		deadline = time.Unix(1, 0)
	}
	_ = b.conn.SetReadDeadline(deadline)
	for b.reading {
		b.free.Wait()
	}
	b.reading = !b.over && b.err == nil && !b.expects
	return b.reading
}
