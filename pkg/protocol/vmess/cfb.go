package vmess

import "crypto/cipher"

// AES-128-CFB serves legacy headers and bodies only. The standard library
// deprecates it because it does not authenticate: here a checksum does, as
// well as it can (section 4).

func cfbEncrypter(key, iv []byte) cipher.Stream {
	//lint:ignore SA1019 the protocol's legacy mode demands CFB
	return cipher.NewCFBEncrypter(mustAES(key), iv)
}

func cfbDecrypter(key, iv []byte) cipher.Stream {
	//lint:ignore SA1019 the protocol's legacy mode demands CFB
	return cipher.NewCFBDecrypter(mustAES(key), iv)
}
