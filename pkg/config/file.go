package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadFile reads a configuration file of at most [MaxSize] bytes. warnings
// are for people: that others can read the file. The error is *Problems with
// the cause config.unreadable, and wraps the system's error.
func ReadFile(path string) (data []byte, warnings []string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	defer func() { _ = file.Close() }() // only read from
	info, err := file.Stat()
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	if info.IsDir() {
		return nil, nil, unreadable(path, errIsDirectory)
	}
	data, err = io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	if len(data) > MaxSize {
		return nil, nil, unreadable(path, errTooLarge)
	}
	if info.Mode().IsRegular() && readableByOthers(info.Mode()) {
		warnings = append(warnings, fmt.Sprintf("%s is readable by other users; run: chmod 600 %s", path, path))
	}
	return data, warnings, nil
}

// Rereadable reports whether a configuration's file can be read again, also
// when it is missing at the moment: reading a pipe would wait for somebody to
// write.
func Rereadable(path string) bool {
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) == 0
}

// Exposed warns of a file with a key that everybody can read; "" is fine. A
// group may: certificates' keys are shared so.
func Exposed(path string) (warning string) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || !readableByAll(info.Mode()) {
		return ""
	}
	return fmt.Sprintf("%s is readable by everyone; run: chmod o-r %s", path, path)
}

var (
	errIsDirectory = errors.New("it is a directory")
	errTooLarge    = errors.New("it is larger than 1 MiB")
)

func unreadable(path string, err error) error {
	reason := err
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		reason = pathErr.Err // without the path: it stands in front already
	}
	return &Problems{All: []Problem{{Cause: CauseUnreadable, File: path, Message: "the file cannot be read: " + reason.Error(), Err: err}}}
}
