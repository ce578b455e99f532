package vmess

import "crypto/sha256"

// The salts of the key derivation function (section 1).
const (
	saltAuthID          = "AES Auth ID Encryption"
	saltLengthKey       = "VMess Header AEAD Key_Length"
	saltLengthNonce     = "VMess Header AEAD Nonce_Length"
	saltHeaderKey       = "VMess Header AEAD Key"
	saltHeaderNonce     = "VMess Header AEAD Nonce"
	saltRespLengthKey   = "AEAD Resp Header Len Key"
	saltRespLengthNonce = "AEAD Resp Header Len IV"
	saltRespHeaderKey   = "AEAD Resp Header Key"
	saltRespHeaderNonce = "AEAD Resp Header IV"
	saltBodyLength      = "auth_len"
)

// kdf derives 32 bytes from key: a nest of HMACs, each of which has the one
// below as its hash function, with HMAC-SHA256 keyed "VMess AEAD KDF" at the
// bottom (section 1). The path elements are the HMAC keys; key is the message.
func kdf(key []byte, path ...[]byte) [32]byte {
	var room [512]byte // enough for every use in the protocol
	return nest(path, append(room[:0], key...))
}

const hmacBlock = 64

func nest(path [][]byte, message []byte) [32]byte {
	hmacKey := []byte("VMess AEAD KDF")
	if n := len(path); n > 0 {
		hmacKey = path[n-1]
	}
	if len(hmacKey) > hmacBlock {
		short := below(path, hmacKey)
		hmacKey = short[:]
	}
	var room [512]byte
	inner := below(path, append(padKey(room[:0], hmacKey, 0x36), message...))
	return below(path, append(padKey(room[:0], hmacKey, 0x5c), inner[:]...))
}

// below is the hash function of a nest's HMAC.
func below(path [][]byte, message []byte) [32]byte {
	if len(path) == 0 {
		return sha256.Sum256(message)
	}
	return nest(path[:len(path)-1], message)
}

// padKey appends the HMAC key, padded to a block and xored with pad.
func padKey(dst, key []byte, pad byte) []byte {
	n := len(dst)
	for range hmacBlock {
		dst = append(dst, pad)
	}
	for i, k := range key {
		dst[n+i] ^= k
	}
	return dst
}

func kdf16(key []byte, path ...[]byte) []byte { k := kdf(key, path...); return k[:16] }
func kdf12(key []byte, path ...[]byte) []byte { k := kdf(key, path...); return k[:12] }
