package vmess

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// TimeWindow is how far a request's time may lie from the server's clock, in
// either direction (section 13).
const TimeWindow = 120 * time.Second

// authIDCipher returns the block cipher of a user's AuthIDs.
func authIDCipher(cmdKey [16]byte) cipher.Block {
	return mustAES(kdf16(cmdKey[:], []byte(saltAuthID)))
}

func mustAES(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another length than ours have
	}
	return b
}

// sealAuthID makes the first 16 bytes of an AEAD request: the time, four
// random bytes and their checksum as one encrypted block (section 3).
func sealAuthID(block cipher.Block, now time.Time, random [4]byte) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(now.Unix()))
	copy(id[8:], random[:])
	binary.BigEndian.PutUint32(id[12:], crc32.ChecksumIEEE(id[:12]))
	block.Encrypt(id[:], id[:])
	return id
}

// openAuthID returns the time of an AuthID made with the same key, and false
// for anything else.
func openAuthID(block cipher.Block, id [16]byte) (unix int64, ok bool) {
	return tryAuthID(block, id[:], make([]byte, 16))
}

// tryAuthID is openAuthID for many tries: plain is room for 16 bytes.
func tryAuthID(block cipher.Block, id, plain []byte) (unix int64, ok bool) {
	block.Decrypt(plain, id)
	if binary.BigEndian.Uint32(plain[12:]) != crc32.ChecksumIEEE(plain[:12]) {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(plain)), true
}

// inWindow reports whether a request of that time may be served at now.
func inWindow(unix int64, now time.Time) bool {
	const window = int64(TimeWindow / time.Second)
	// unix may be any number an authenticated peer chose, so no subtraction
	// that could overflow.
	return unix >= 0 && unix >= now.Unix()-window && unix <= now.Unix()+window
}
