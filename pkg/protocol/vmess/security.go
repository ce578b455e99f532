package vmess

import (
	"errors"
	"fmt"

	"golang.org/x/sys/cpu"
)

// A Security is a body's cipher as it goes on the wire (section 7).
type Security byte

// The security codes that may appear in a request.
const (
	SecurityAESCFB           Security = 1 // aes-128-cfb: served for old clients, never sent
	SecurityAESGCM           Security = 3 // aes-128-gcm
	SecurityChaCha20Poly1305 Security = 4 // chacha20-poly1305
	SecurityNone             Security = 5 // none; with no option at all also "zero"
)

// String returns the name that configurations use.
func (s Security) String() string {
	switch s {
	case SecurityAESCFB:
		return "aes-128-cfb"
	case SecurityAESGCM:
		return "aes-128-gcm"
	case SecurityChaCha20Poly1305:
		return "chacha20-poly1305"
	case SecurityNone:
		return "none"
	}
	return fmt.Sprintf("security %d", byte(s))
}

// sealed reports whether the body's chunks are authenticated.
func (s Security) sealed() bool { return s == SecurityAESGCM || s == SecurityChaCha20Poly1305 }

// An Option is a bit set of a request header (section 7).
type Option byte

// The option bits.
const (
	OptionChunked             Option = 0x01 // S: the body is a series of chunks
	OptionMasking             Option = 0x04 // M: the chunks' lengths are masked
	OptionPadding             Option = 0x08 // P: chunks carry random padding
	OptionAuthenticatedLength Option = 0x10 // A: the chunks' lengths are sealed
)

func (o Option) has(bit Option) bool { return o&bit != 0 }

// A Command says what a request asks for (section 5).
type Command byte

// The commands.
const (
	CommandTCP Command = 1
	CommandUDP Command = 2
	CommandMux Command = 3 // Mux.Cool: many streams in one, without an address
)

// ErrUnknownSecurity is returned for a cipher name that is none of ours.
var ErrUnknownSecurity = errors.New("unknown security")

// A Method is how a client seals bodies: a security and what its options are
// for streams.
type Method struct {
	Security Security
	Option   Option
}

// ParseMethod turns a configuration's security into what goes on the wire:
// aes-128-gcm, chacha20-poly1305, none, zero, and auto, which is aes-128-gcm
// where the processor has it and chacha20-poly1305 elsewhere. Padding and
// sealed lengths exist for the first two only (section 17.12).
func ParseMethod(name string, globalPadding, authenticatedLength bool) (Method, error) {
	var m Method
	switch name {
	case "", "auto":
		m.Security = SecurityChaCha20Poly1305
		if hardwareAES() {
			m.Security = SecurityAESGCM
		}
	case "aes-128-gcm":
		m.Security = SecurityAESGCM
	case "chacha20-poly1305":
		m.Security = SecurityChaCha20Poly1305
	case "none":
		return Method{Security: SecurityNone, Option: OptionChunked | OptionMasking}, nil
	case "zero":
		return Method{Security: SecurityNone}, nil
	default:
		return Method{}, fmt.Errorf("%w %q", ErrUnknownSecurity, name)
	}
	m.Option = OptionChunked | OptionMasking
	if globalPadding {
		m.Option |= OptionPadding
	}
	if authenticatedLength {
		m.Option |= OptionAuthenticatedLength
	}
	return m, nil
}

// forCommand returns the options of a request: datagrams need chunks to keep
// their borders, so "zero" cannot carry them (section 9).
func (m Method) forCommand(c Command) Option {
	if c == CommandUDP && !m.Option.has(OptionChunked) {
		return m.Option | OptionChunked
	}
	return m.Option
}

func hardwareAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ ||
		cpu.ARM64.HasAES && cpu.ARM64.HasPMULL ||
		cpu.S390X.HasAES && cpu.S390X.HasAESCTR && cpu.S390X.HasGHASH
}
