package vmess

import (
	"crypto/cipher"
	"crypto/md5"
	"encoding/binary"
	"time"
)

// Sizes of an AEAD request's parts (section 3).
const (
	authIDSize    = 16
	tagSize       = 16
	sealedLenSize = 2 + tagSize
	nonceSize     = 8
)

// sealAEAD appends an AEAD request's header to dst: AuthID, sealed length,
// connection nonce, sealed header (section 3).
func sealAEAD(dst []byte, cmdKey, authID [16]byte, nonce [8]byte, header []byte) []byte {
	dst = append(dst, authID[:]...)
	keys := headerKeys{cmdKey: cmdKey, authID: authID, nonce: nonce}
	length := binary.BigEndian.AppendUint16(nil, uint16(len(header)))
	dst = keys.aead(saltLengthKey).Seal(dst, keys.nonceFor(saltLengthNonce), length, authID[:])
	dst = append(dst, nonce[:]...)
	return keys.aead(saltHeaderKey).Seal(dst, keys.nonceFor(saltHeaderNonce), header, authID[:])
}

// headerKeys derives the keys of one AEAD request's header.
type headerKeys struct {
	cmdKey, authID [16]byte
	nonce          [8]byte
}

func (k *headerKeys) aead(salt string) cipher.AEAD {
	return newGCM(kdf16(k.cmdKey[:], []byte(salt), k.authID[:], k.nonce[:]))
}

func (k *headerKeys) nonceFor(salt string) []byte {
	return kdf12(k.cmdKey[:], []byte(salt), k.authID[:], k.nonce[:])
}

func newGCM(key []byte) cipher.AEAD {
	a, err := cipher.NewGCM(mustAES(key))
	if err != nil {
		panic(err) // only for a cipher of another block size than AES has
	}
	return a
}

// legacyHash is the first 16 bytes of a legacy request: what the server finds
// user and time by (section 4).
func legacyHash(id ID, unix int64) [16]byte {
	return newLegacyHasher(id).hash(unix)
}

// legacyIV is the header cipher's initial vector of a legacy request.
func legacyIV(unix int64) [16]byte {
	t := binary.BigEndian.AppendUint64(nil, uint64(unix))
	return md5.Sum(append(append(append(append([]byte{}, t...), t...), t...), t...))
}

// sealLegacy appends a legacy request's header: hash, encrypted header
// (section 4). id is the one that vouches, cmdKey the main id's.
func sealLegacy(dst []byte, cmdKey [16]byte, id ID, now time.Time, header []byte) []byte {
	unix := now.Unix()
	hash, iv := legacyHash(id, unix), legacyIV(unix)
	dst = append(dst, hash[:]...)
	start := len(dst)
	dst = append(dst, header...)
	cfbEncrypter(cmdKey[:], iv[:]).XORKeyStream(dst[start:], dst[start:])
	return dst
}
