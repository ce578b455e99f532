package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// maxTextID is the most bytes of an id that is no UUID: so many Xray maps.
const maxTextID = 30

const wantedID = "a UUID, or other text of 1 to 30 bytes"

// canonicalID returns an id in canonical form: a UUID in its 36 characters,
// other text as it is. mistake says, without showing the id, why it is none.
func canonicalID(id Secret) (canonical Secret, mistake string) {
	text := string(id)
	odd := strings.IndexFunc(text, func(r rune) bool { return r != '-' && !isHexDigit(r) })
	switch {
	case text == "":
		return "", "the id is empty"
	case odd >= 0 && len(text) <= maxTextID && utf8.ValidString(text):
		return id, ""
	case odd >= 0:
		return "", fmt.Sprintf("this is no UUID: byte %d of %d is no hexadecimal digit", odd+1, len(text))
	}
	return canonicalUUID(text)
}

// canonicalUUID is canonicalID for text of hexadecimal digits and dashes. One
// digit less or more must never become another identity.
func canonicalUUID(text string) (canonical Secret, mistake string) {
	length := 32
	if strings.Contains(text, "-") {
		length = 36
	}
	if len(text) != length {
		return "", fmt.Sprintf("UUID has %d of %d characters", len(text), length)
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return "", "the dashes of the UUID are in the wrong places"
	}
	return Secret(id.String()), ""
}

// identity is what an id stands for on the wire, in which two users must
// differ.
func identity(id Secret) uuid.UUID {
	if parsed, err := uuid.Parse(string(id)); err == nil {
		return parsed
	}
	return uuid.NewSHA1(uuid.Nil, []byte(id))
}

func isHexDigit(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F'
}
