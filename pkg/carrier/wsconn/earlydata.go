package wsconn

import (
	"encoding/base64"
	"errors"
	"strings"
)

const (
	// maxEarlyData bounds decoded early data in bytes.
	maxEarlyData = 8 << 10
	// minPathEarlyData is the smallest VMess request (docs/protocol.md 3):
	// anything shorter behind the path is another path.
	minPathEarlyData = 54
)

// errEarlyData refuses early data that is longer than maxEarlyData.
var errEarlyData = errors.New("early data longer than 8 KiB")

// encodeEarlyData is what all peers read: base64url without padding.
func encodeEarlyData(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decodeHeaderEarlyData decodes a Sec-WebSocket-Protocol header. Both base64
// alphabets are taken, with or without padding; anything else is a
// subprotocol and no early data.
func decodeHeaderEarlyData(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "+/") {
		s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	}
	return decodeEarlyData(s)
}

// decodePathEarlyData decodes what follows the path of a request; nil means
// that it is no early data.
func decodePathEarlyData(s string) []byte {
	b, err := decodeEarlyData(s)
	if err != nil || len(b) < minPathEarlyData {
		return nil
	}
	return b
}

func decodeEarlyData(s string) ([]byte, error) {
	if base64.RawURLEncoding.DecodedLen(len(s)) > maxEarlyData {
		return nil, errEarlyData
	}
	if strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, nil
	}
	return b, nil
}
