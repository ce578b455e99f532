package wsconn

import (
	"bytes"
	"errors"
	"time"
)

const (
	// maxHead bounds the response head in bytes, informational ones included.
	maxHead = 16 << 10
	// maxSeen bounds what a ProtocolError shows.
	maxSeen = 64
	// bodyWait is how long to wait for the body of a refusal, which is only
	// for people.
	bodyWait = 500 * time.Millisecond
)

var (
	errLongHead = errors.New("the head is longer than 16 KiB")
	errNotHTTP  = errors.New("it does not begin with HTTP/")
	errBadHead  = errors.New("the head is broken") // how would repeat a part of it
)

// An upgradeResponse is the state of a carrier on which the answer to an upgrade
// request is due. The head is read whole and checked before gorilla gets it:
// gorilla bounds nothing and takes informational answers (RFC 9110 section
// 15.2) for refusals.
type upgradeResponse struct {
	head     int  // bytes of the head not yet handed out
	body     bool // the head is handed out; a body follows
	upgraded bool // the status is 101: frames follow
	dropped  int  // bytes of informational answers
	seen     []byte
	sent     time.Time // when the request was last written to
	received time.Time // when the head was complete
	err      error     // why it is no HTTP answer
}

// readAnswer serves gorilla the response head, and the body of a refusal.
func (c *frameConn) readAnswer(b []byte) (int, error) {
	a := c.answer
	if a.body {
		if c.r == c.w {
			if err := c.fetch(false); err != nil {
				return 0, err
			}
		}
		return c.take(b, len(b)), nil
	}
	if a.head == 0 {
		if err := c.awaitHead(); err != nil {
			return 0, err
		}
	}
	n := c.take(b, a.head)
	if a.head -= n; a.head == 0 {
		c.headDone()
	}
	return n, nil
}

func (c *frameConn) headDone() {
	if c.answer.upgraded {
		c.settle()
		c.answer = nil
		return
	}
	c.answer.body = true
	_ = c.conn.SetReadDeadline(time.Now().Add(bodyWait))
}

// awaitHead reads until the window begins with the whole head of an answer
// that is not informational.
func (c *frameConn) awaitHead() error {
	a := c.answer
	for {
		got := c.buf[c.r:c.w]
		end, err := checkHead(got, maxHead-a.dropped)
		switch {
		case err != nil:
			a.seen, a.err = bytes.Clone(got[:min(len(got), maxSeen)]), err
			return err
		case end == 0:
			if err := c.fetch(c.r == c.w); err != nil {
				a.seen = bytes.Clone(got[:min(len(got), maxSeen)])
				return err
			}
		case informational(got):
			a.dropped += end
			if c.r += end; c.r == c.w {
				c.drained()
			}
		default:
			a.head, a.upgraded = end, statusIs(got, "101")
			a.seen = bytes.Clone(got[:min(end, maxSeen)])
			a.received = time.Now()
			return nil
		}
	}
}

// checkHead returns the length of the response head that b begins with, or 0
// when more must come.
func checkHead(b []byte, limit int) (int, error) {
	const start = "HTTP/"
	if n := min(len(b), len(start)); string(b[:n]) != start[:n] {
		return 0, errNotHTTP
	}
	end := headEnd(b)
	if end > limit || end == 0 && len(b) >= limit {
		return 0, errLongHead
	}
	return end, nil
}

// headEnd finds the end of the first empty line. Like net/http it takes a
// line feed alone for a line's end.
func headEnd(b []byte) int {
	for i := 0; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n
		switch rest := b[i+1:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 2
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 3
		}
	}
}

// informational reports a status of 1xx other than 101.
func informational(head []byte) bool { return statusIs(head, "1") && !statusIs(head, "101") }

// statusIs reports whether the status code begins with digits.
func statusIs(head []byte, digits string) bool {
	_, status, ok := bytes.Cut(head, []byte(" "))
	return ok && bytes.HasPrefix(bytes.TrimLeft(status, " "), []byte(digits))
}
