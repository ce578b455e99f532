package vmess

import (
	"crypto/cipher"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrBadResponse is wrapped by the errors of an answer that cannot be opened:
// it does not come from a server that could read the request.
var ErrBadResponse = errors.New("the answer does not decrypt")

// responseEndsApart is the bit of the response's option byte by which this
// package's server says that it passes a half close on, waits however long
// for the answer, and always sends an end mark. Other clients ignore the byte
// and other servers leave the bit clear (section 6).
const responseEndsApart = 0x80

// responseBreaks is the bit by which this package's server says that it marks a
// destination's break inside the answer, for a client that understands that.
const responseBreaks = 0x40

// responseKeys are the keys of a response's header and body (section 6).
type responseKeys struct {
	key, iv [16]byte
	legacy  bool

	// Of an AEAD header: derived with the others, so that who reads the
	// response, and may be idle for hours then, needs no stack for it.
	lengthKey, headerKey     [16]byte
	lengthNonce, headerNonce [12]byte
}

func deriveResponse(h *requestHeader, legacy bool) responseKeys {
	if legacy {
		return responseKeys{key: md5.Sum(h.key[:]), iv: md5.Sum(h.iv[:]), legacy: true}
	}
	k, i := sha256.Sum256(h.key[:]), sha256.Sum256(h.iv[:])
	key, iv := k[:16], i[:16]
	return responseKeys{
		key: [16]byte(key), iv: [16]byte(iv),
		lengthKey: [16]byte(kdf16(key, []byte(saltRespLengthKey))), lengthNonce: [12]byte(kdf12(iv, []byte(saltRespLengthNonce))),
		headerKey: [16]byte(kdf16(key, []byte(saltRespHeaderKey))), headerNonce: [12]byte(kdf12(iv, []byte(saltRespHeaderNonce))),
	}
}

// sealResponse appends a response's header. It returns the stream cipher that
// runs on into an aes-128-cfb body in legacy mode, and nil otherwise.
func (k responseKeys) seal(dst []byte, v, option byte) ([]byte, cipher.Stream) {
	plain := []byte{v, option, 0, 0}
	if k.legacy {
		stream := cfbEncrypter(k.key[:], k.iv[:])
		stream.XORKeyStream(plain, plain)
		return append(dst, plain...), stream
	}
	length := binary.BigEndian.AppendUint16(nil, uint16(len(plain)))
	dst = newGCM(k.lengthKey[:]).Seal(dst, k.lengthNonce[:], length, nil)
	return newGCM(k.headerKey[:]).Seal(dst, k.headerNonce[:], plain, nil), nil
}

// open reads a response's header: it checks V, and drops a command, as every
// client does (section 6). It returns the option byte and, in legacy mode, the
// stream cipher that runs on into an aes-128-cfb body.
func (k responseKeys) open(in *inbuf, v byte) (option byte, stream cipher.Stream, err error) {
	var plain []byte
	if k.legacy {
		stream = cfbDecrypter(k.key[:], k.iv[:])
		plain, err = openLegacyResponse(in, stream, v)
	} else {
		plain, err = k.openAEADResponse(in)
	}
	if err != nil {
		return 0, nil, err
	}
	if len(plain) < 4 || plain[0] != v {
		return 0, nil, fmt.Errorf("%w: unexpected response header", ErrBadResponse)
	}
	return plain[1], stream, nil
}

func openLegacyResponse(in *inbuf, stream cipher.Stream, v byte) ([]byte, error) {
	p, err := in.take(4)
	if err != nil {
		return nil, err
	}
	plain := append([]byte(nil), p...)
	stream.XORKeyStream(plain, plain)
	if plain[2] != 0 && plain[0] == v { // else its length is not one
		command, err := in.take(int(plain[3]))
		if err != nil {
			return nil, err
		}
		stream.XORKeyStream(command, command)
	}
	return plain, nil
}

func (k responseKeys) openAEADResponse(in *inbuf) ([]byte, error) {
	p, err := in.take(sealedLenSize)
	if err != nil {
		return nil, err
	}
	length, err := newGCM(k.lengthKey[:]).Open(nil, k.lengthNonce[:], p, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: its length", ErrBadResponse)
	}
	if p, err = in.take(int(binary.BigEndian.Uint16(length)) + tagSize); err != nil {
		return nil, err
	}
	plain, err := newGCM(k.headerKey[:]).Open(nil, k.headerNonce[:], p, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: its header", ErrBadResponse)
	}
	return plain, nil
}
