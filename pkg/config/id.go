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
	text := unwrapped(string(id))
	odd := strings.IndexFunc(text, func(r rune) bool { return r != '-' && !isHexDigit(r) })
	switch {
	case text == "":
		return "", "the id is empty"
	case odd >= 0 && (shapedLikeUUID(text) || !utf8.ValidString(text)):
		return "", fmt.Sprintf("this is not a UUID: byte %d of %d is not a hexadecimal digit", odd+1, len(text))
	case odd >= 0:
		return id, ""
	}
	return canonicalUUID(text)
}

// unwrapped takes off what others' parsers allow round a UUID.
func unwrapped(text string) string {
	const urn = "urn:uuid:"
	bare := text
	switch n := len(text); {
	case n == 38 && text[0] == '{' && text[n-1] == '}':
		bare = text[1 : n-1]
	case n == len(urn)+36 && strings.EqualFold(text[:len(urn)], urn):
		bare = text[len(urn):]
	}
	if shapedLikeUUID(bare) {
		return bare
	}
	return text
}

// shapedLikeUUID reports whether a text can only be meant as a UUID: with one
// wrong digit it must not become another identity.
func shapedLikeUUID(text string) bool {
	return len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-'
}

// IDWarning is about an id that not all programs understand in the same way;
// empty when there is nothing to warn of.
func IDWarning(id Secret) string {
	if text := unwrapped(string(id)); len(text) > maxTextID && !shapedLikeUUID(text) && strings.Trim(text, "0123456789abcdefABCDEF-") != "" {
		return fmt.Sprintf("the id is text of %d bytes, not a UUID: sing-box and mihomo understand it, V2Ray and Xray do not", len(text))
	}
	return ""
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
