package control

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// secretSize is that of a secret in bytes.
const secretSize = 16

// Secret returns the secret called name that is kept in dir for the programs
// of this user: 32 hexadecimal digits in a file that nobody else may read. It
// is made at first use, and anew when the file holds something else or others
// could have read it.
func Secret(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".secret")
	if secret, ok := readSecret(path); ok {
		return secret, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep a secret: %w", err)
	}
	var fresh [secretSize]byte
	_, _ = rand.Read(fresh[:]) // never fails
	if err := writeSecret(path, hex.EncodeToString(fresh[:])); err != nil {
		return "", fmt.Errorf("keep a secret: %w", err)
	}
	return hex.EncodeToString(fresh[:]), nil
}

func readSecret(path string) (string, bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != 2*secretSize || !private(info) {
		return "", false
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	raw, err := hex.DecodeString(string(data))
	return string(data), err == nil && len(raw) == secretSize
}

// writeSecret puts a whole file in place.
func writeSecret(path, secret string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-") // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
