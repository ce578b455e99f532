package vmess

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/iotest"

	"vmess-local/pkg/transport"
)

// TestResetBehindAnswer: where the far end does not mark its ends, a reset
// between two chunks may be that of a whole answer. Within a chunk, before the
// first, and where an end mark is due, it is not.
func TestResetBehindAnswer(t *testing.T) {
	reset := fmt.Errorf("ws: %w", syscall.ECONNRESET)
	s := newTestServer(t, ServerConfig{})
	c := style{method: Method{SecurityAESGCM, masked}}.client(testID)
	for name, tt := range map[string]struct {
		option    byte // of the answer's header
		cut       int  // bytes of the answer's chunk that do not come
		bare      bool // nothing behind the header comes
		end       error
		ambiguous bool
	}{
		"sing-box":                    {option: byte(masked), end: reset, ambiguous: true},
		"sing-box, within the chunk":  {option: byte(masked), cut: 1, end: reset},
		"sing-box, without data":      {option: byte(masked), bare: true, end: reset},
		"sing-box, and another fault": {option: byte(masked), end: errors.New("bad record MAC")},
		"Xray, without its end mark":  {option: 0, end: reset},
		"own, without its end mark":   {option: responseEndsApart, end: reset},
	} {
		t.Run(name, func(t *testing.T) {
			conn, r := recording(t, c, []byte("question"))
			in := newInbuf(&recorder{in: bytes.NewReader(r.writes[0])})
			h, err := (&requestParser{server: s, in: &in}).open()
			if err != nil {
				t.Fatal(err)
			}
			keys := deriveResponse(h, false)
			header, _ := keys.seal(nil, h.v, tt.option)
			body := newBodyWriter(responseFormat(h, keys), nil)
			wire := body.seal(header, []byte("answer"))
			wire = wire[:len(wire)-tt.cut]
			if tt.bare {
				wire = wire[:len(header)]
			}
			r.in = io.MultiReader(bytes.NewReader(wire), iotest.ErrReader(tt.end))
			_, err = io.ReadAll(conn)
			var end *transport.AmbiguousEnd
			if errors.As(err, &end) != tt.ambiguous || !errors.Is(err, tt.end) {
				t.Errorf("ended with %v (%T), ambiguous: want %v", err, err, tt.ambiguous)
			}
		})
	}
}
