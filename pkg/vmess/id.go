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

// ParseID reads 32 hexadecimal digits, dashes optional. Text of 1 to 30 bytes
// that is not meant as a UUID becomes a version-5 UUID as Xray, sing-box and
// mihomo map it. Text of nothing but hexadecimal digits and dashes is meant as
// a UUID and must be a whole one.
func ParseID(s string) (ID, error) {
	if s != "" && strings.Trim(s, "0123456789abcdefABCDEF-") == "" {
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
	if len(s) < 1 || len(s) > 30 {
		return ID{}, fmt.Errorf("%w: want a UUID, or a text of 1 to 30 bytes; this has %d", ErrBadID, len(s))
	}
	return ID(uuid.NewSHA1(uuid.Nil, []byte(s))), nil
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
