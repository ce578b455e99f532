package serverinit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a fresh certificate and its key.
func pair(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"vps.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func TestCheckCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t)
	otherCert, otherKey := pair(t)
	files := map[string][]byte{
		"cert": cert, "key": key, "chain": append(bytes.Clone(cert), otherCert...), "both": append(bytes.Clone(key), cert...),
		"other": otherKey, "text": []byte("hello"), "empty": nil, "large": make([]byte, maxPEM+1),
		"damaged": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("5ec2e7")}),
		"half":    append(bytes.Clone(cert), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("5ec2e7")})...),
		"badkey":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("5ec2e7")}),
		"locked":  pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("5ec2e7")}),
		"oldlock": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES"}, Bytes: []byte("5ec2e7")}),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		cert, key string
		wrong     string // the file that is named; "" is none
		err       error  // nil is any
	}{
		{cert: "cert", key: "key"},
		{cert: "chain", key: "key"},
		{cert: "both", key: "both"},
		{"absent", "key", "absent", fs.ErrNotExist},
		{"cert", "absent", "absent", fs.ErrNotExist},
		{".", "key", ".", nil},
		{"text", "key", "text", errNoCertificate},
		{"empty", "key", "empty", errNoCertificate},
		{"large", "key", "large", errTooLarge},
		{"damaged", "key", "damaged", nil},
		{"half", "key", "half", nil},
		{"key", "cert", "key", errSwapped},
		{"cert", "cert", "cert", errNoKey},
		{"cert", "text", "text", errNoKey},
		{"cert", "locked", "locked", errEncrypted},
		{"cert", "oldlock", "oldlock", errEncrypted},
		{"cert", "badkey", "badkey", nil},
		{"cert", "other", "other", errOther},
	} {
		err := CheckCertificate(filepath.Join(dir, c.cert), filepath.Join(dir, c.key))
		var wrong *CertificateError
		switch found := errors.As(err, &wrong); {
		case !found && (c.wrong != "" || err != nil):
			t.Errorf("%s and %s: %v", c.cert, c.key, err)
		case !found:
		case wrong.File != filepath.Join(dir, c.wrong) || wrong.Key != (c.wrong == c.key) || wrong.Want == "" || c.err != nil && !errors.Is(err, c.err):
			t.Errorf("%s and %s: %+v", c.cert, c.key, wrong)
		case strings.Count(err.Error(), wrong.File) != 1 || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s and %s: %q", c.cert, c.key, err)
		}
	}
}
