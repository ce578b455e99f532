package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Permissions of what is installed.
const (
	plainFile  fs.FileMode = 0o644
	programme  fs.FileMode = 0o755
	directory              = fs.ModeDir | 0o755
	secretsDir             = fs.ModeDir | 0o750
)

// A file is one entry of an archive. All belong to root.
type file struct {
	name string // relative, with slashes
	mode fs.FileMode
	data []byte // nil for a directory
}

// A tree is what an archive holds, in any order.
type tree []file

// add adds a file.
func (t *tree) add(name string, mode fs.FileMode, data []byte) {
	*t = append(*t, file{name, mode, data})
}

// copyIn adds the file called from on this machine.
func (t *tree) copyIn(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	t.add(name, plainFile, data)
	return nil
}

// copyDir adds all files of a directory of this machine, and of those below.
func (t *tree) copyDir(name, from string) error {
	return filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		below, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		return t.copyIn(path.Join(name, filepath.ToSlash(below)), at)
	})
}

// complete returns the entries by name, with all directories above them.
func (t tree) complete() tree {
	known := map[string]bool{".": true}
	all := slices.Clone(t)
	for _, f := range t {
		known[f.name] = true
	}
	for _, f := range t {
		for dir := path.Dir(f.name); !known[dir]; dir = path.Dir(dir) {
			known[dir] = true
			all.add(dir, directory, nil)
		}
	}
	slices.SortFunc(all, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return all
}

// under returns the tree within a directory.
func (t tree) under(dir string) tree {
	moved := slices.Clone(t)
	for i := range moved {
		moved[i].name = path.Join(dir, moved[i].name)
	}
	return moved
}

// writeTarGz writes a tree as a compressed tar archive whose bytes depend on
// nothing but the tree, the prefix of its names and the time. With the prefix
// "./" the root has an entry, as dpkg wants it.
func writeTarGz(w io.Writer, t tree, prefix string, at time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	out := tar.NewWriter(z)
	all := t.complete()
	if prefix != "" {
		all = slices.Insert(all, 0, file{"", directory, nil})
	}
	for _, f := range all {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: prefix + f.name, Mode: int64(f.mode.Perm()), Size: int64(len(f.data)),
			ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatGNU,
		}
		if f.mode.IsDir() {
			h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := out.Write(f.data); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return z.Close()
}

// writeZip writes a tree as a zip archive whose bytes depend on nothing but
// the tree and the time.
func writeZip(w io.Writer, t tree, at time.Time) error {
	out := zip.NewWriter(w)
	for _, f := range t.complete() {
		if f.mode.IsDir() {
			continue
		}
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at}
		h.SetMode(f.mode)
		part, err := out.CreateHeader(h)
		if err == nil {
			_, err = part.Write(f.data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return out.Close()
}

// compressed is data as gzip -9n makes it: without name and time.
func compressed(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
