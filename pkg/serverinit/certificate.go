package serverinit

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// A CertificateError tells why a certificate and its key cannot be used.
type CertificateError struct {
	Key  bool   // it is the key's file that is wrong, else the certificate's
	File string // its name
	Err  error  // what is wrong with it
	Want string // what would be right
}

// Error implements error.
func (e *CertificateError) Error() string { return e.File + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *CertificateError) Unwrap() error { return e.Err }

const (
	wantCertificate = "a file with the server's certificate in PEM form, the intermediate ones behind it (fullchain.pem)"
	wantKey         = "the file with the key of that certificate in PEM form (privkey.pem)"
	// maxPEM is more than any chain needs.
	maxPEM = 1 << 20
)

// Errors that a [*CertificateError] wraps.
var (
	errNoCertificate = errors.New("it holds no certificate in PEM form")
	errNoKey         = errors.New("it holds no private key in PEM form")
	errEncrypted     = errors.New("its key is locked with a password")
	errSwapped       = errors.New("it holds a key in place of a certificate: the two files are swapped")
	errOther         = errors.New("the key is not that of the certificate")
	errTooLarge      = errors.New("it is larger than 1 MiB")
)

// CheckCertificate reports whether the two files can be read, are a certificate
// and a key, and belong together. The error is a [*CertificateError]; it shows
// nothing of the key.
func CheckCertificate(certFile, keyFile string) error {
	chain, err := readPEM(certFile)
	if err != nil {
		return &CertificateError{File: certFile, Err: err, Want: wantCertificate}
	}
	key, err := readPEM(keyFile)
	if err != nil {
		return &CertificateError{Key: true, File: keyFile, Err: err, Want: wantKey}
	}
	if err := certificates(chain); err != nil {
		return &CertificateError{File: certFile, Err: err, Want: wantCertificate}
	}
	if err := privateKey(key); err != nil {
		return &CertificateError{Key: true, File: keyFile, Err: err, Want: wantKey}
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		if strings.Contains(err.Error(), "does not match") {
			err = errOther
		}
		return &CertificateError{Key: true, File: keyFile, Err: err, Want: wantKey}
	}
	return nil
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return nil, plain(err)
	case len(data) > maxPEM:
		return nil, errTooLarge
	}
	return data, nil
}

// plain leaves out the file's name, which stands in front already.
func plain(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// certificates looks at all certificates of a chain.
func certificates(data []byte) error {
	n, keys := 0, false
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			keys = true
		case block.Type == "CERTIFICATE":
			n++
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return fmt.Errorf("its certificate %d is damaged: %w", n, err)
			}
		}
	}
	switch {
	case n == 0 && keys:
		return errSwapped
	case n == 0:
		return errNoCertificate
	}
	return nil
}

// privateKey looks for a key that can be read without a password.
func privateKey(data []byte) error {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return errEncrypted
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil
		}
	}
	return errNoKey
}
