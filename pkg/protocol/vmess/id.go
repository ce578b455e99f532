package vmess

import (
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// ErrBadID is wrapped by ParseID's errors, which never hold the text itself.
var ErrBadID = errors.New("not a user id")

// An ID is a user's secret of 16 bytes (section 1). It prints, and marshals, as
// nothing useful on purpose; use Text for its UUID form.
type ID [16]byte

// String keeps ids out of logs.
func (ID) String() string { return "(user id)" }

// Format keeps ids out of logs, whatever the verb.
func (id ID) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, id.String()) }

// MarshalText keeps ids out of logs that are written as JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// Text returns the id as a UUID in lower case with dashes.
func (id ID) Text() string { return uuid.UUID(id).String() }

// NewID returns a fresh random id (UUID version 4).
func NewID() ID { return ID(uuid.New()) }

// ParseID reads 32 hexadecimal digits, dashes optional; a whole UUID may stand
// in braces or behind "urn:uuid:". Text of nothing but hexadecimal digits and
// dashes, or in the form of a UUID, is meant as one and must be a whole one.
// Other text becomes a version-5 UUID, as Xray (up to 30 bytes), sing-box and
// mihomo map it.
func ParseID(s string) (ID, error) {
	switch n := len(s); {
	case n == 0:
		return ID{}, fmt.Errorf("%w: it is empty", ErrBadID)
	case n == 36+2 && s[0] == '{' && s[n-1] == '}' && shapedLikeUUID(s[1:n-1]):
		return ParseID(s[1 : n-1])
	case n == 36+9 && strings.EqualFold(s[:9], "urn:uuid:") && shapedLikeUUID(s[9:]):
		return ParseID(s[9:])
	case strings.Trim(s, "0123456789abcdefABCDEF-") == "":
		return parseUUID(s)
	case shapedLikeUUID(s):
		return ID{}, fmt.Errorf("%w: one of the UUID's digits is not hexadecimal", ErrBadID)
	}
	return ID(uuid.NewSHA1(uuid.Nil, []byte(s))), nil
}

func shapedLikeUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
}

func parseUUID(s string) (ID, error) {
	want := 32
	if strings.Contains(s, "-") {
		want = 36
	}
	if len(s) != want {
		return ID{}, fmt.Errorf("%w: UUID has %d of %d characters", ErrBadID, len(s), want)
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("%w: the UUID's dashes stand in the wrong places", ErrBadID)
	}
	return ID(u), nil
}

const (
	cmdKeySalt  = "c48619fe-8f02-49e0-b9e9-edf763e17e21"
	alterIDSalt = "16167dc8-16b6-4e6d-b8bb-65dd68113a81"
	alterIDMore = "533eff8a-4113-4b10-b5ce-0f5d76b98cd2"
)

// cmdKey is the key of everything in a request's header, in both modes.
func (id ID) cmdKey() [16]byte { return md5.Sum(append(id[:], cmdKeySalt...)) }

// next returns the id that follows in the chain of alter ids.
func (id ID) next() ID {
	text := append(id[:], alterIDSalt...)
	for {
		if next := ID(md5.Sum(text)); next != id {
			return next
		}
		text = append(text, alterIDMore...)
	}
}

// alterIDs returns the n ids derived from id for the legacy mode.
func (id ID) alterIDs(n int) []ID {
	ids := make([]ID, n)
	for i := range ids {
		id = id.next()
		ids[i] = id
	}
	return ids
}
