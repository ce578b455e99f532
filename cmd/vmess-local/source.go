package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
)

// loadConfig reads a command's configuration from a file, standard input or a
// link; "" looks in the usual places. Warnings are for the log.
func loadConfig(cmd *cobra.Command, source string) (cfg *config.Client, warnings []string, err error) {
	switch {
	case isLink(source):
		return fromLink(source)
	case source == "-":
		return fromStdin(cmd.InOrStdin())
	case source == "":
		if source, err = findConfig(cmd); err != nil {
			return nil, nil, err
		}
	}
	data, warnings, err := config.ReadFile(source)
	if err != nil {
		return nil, nil, unreadable(source, err)
	}
	cfg, err = config.ParseClient(source, data)
	return cfg, warnings, notOurs(err, source, source, data)
}

// absolute is the absolute path of a configuration's file; "" looks in the usual
// places.
func absolute(cmd *cobra.Command, file string) string {
	if file == "" {
		file, _ = findConfig(cmd)
	}
	full, err := filepath.Abs(file)
	if err != nil {
		return file
	}
	return full
}

// errForeign is wrapped by the errors of files that other programs wrote.
var errForeign = errors.New("this is no configuration of vmess-local")

// notOurs replaces what is wrong with a configuration by the command that turns
// it into one, where another program wrote it: a list of all its keys that are
// unknown here helps nobody. It is not taken as it is, so that what runs can
// always be read and changed in one form.
func notOurs(err error, name, arg string, data []byte) error {
	var problems *config.Problems
	if !errors.As(err, &problems) || !foreign(problems, data) {
		return err
	}
	found, readErr := sharelink.Read(data)
	if readErr != nil {
		return err
	}
	into := "config.json"
	if filepath.Base(arg) == into {
		into = "vmess-local.json" // the shell empties it before it is read
	}
	if strings.ContainsRune(arg, ' ') {
		arg = strconv.Quote(arg)
	}
	return fmt.Errorf("%s: %w, but has %s that can be used\nfix: vmess-local link import %s -o %s, and then vmess-local run -c %s",
		name, errForeign, counted(len(found.Servers)), arg, into, into)
}

// foreign reports whether a text that could not be parsed may be another
// program's: JSON without any server of ours, or what is no JSON at all.
func foreign(problems *config.Problems, data []byte) bool {
	text := strings.TrimLeft(strings.TrimPrefix(string(data), "\ufeff"), " \t\r\n")
	for _, p := range problems.All {
		switch {
		case p.Cause == config.CauseMissing && p.Path == "server":
			return true
		case p.Cause == config.CauseSyntax:
			return text != "" && !strings.ContainsAny(text[:1], "{[/")
		}
	}
	return false
}

func fromStdin(stdin io.Reader) (cfg *config.Client, warnings []string, err error) {
	const name = "standard input"
	data, err := io.ReadAll(io.LimitReader(stdin, config.MaxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > config.MaxSize {
		return nil, nil, fmt.Errorf("%s: it is larger than 1 MiB", name)
	}
	if text := string(data); isLink(text) {
		return fromLink(text)
	}
	cfg, err = config.ParseClient(name, data)
	return cfg, nil, notOurs(err, name, "-", data)
}

func isLink(text string) bool {
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	return len(text) >= len(vmessScheme) && strings.EqualFold(text[:len(vmessScheme)], vmessScheme)
}

const vmessScheme = "vmess://"

func fromLink(link string) (cfg *config.Client, warnings []string, err error) {
	found, err := sharelink.Read([]byte(link))
	if err != nil {
		return nil, nil, fmt.Errorf("the link: %w", err)
	}
	for _, skipped := range found.Skipped {
		warnings = append(warnings, "skipped: "+skipped.String())
	}
	cfg = found.Config()
	warnings = append(warnings, found.Notes...)
	if err := cfg.Normalize(); err != nil {
		return nil, nil, fmt.Errorf("the link: %w", err)
	}
	return cfg, warnings, nil
}

// unreadable keeps a link that is not taken for one, as for want of its
// beginning, from being shown as a file's name.
func unreadable(name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) && len(name) < 255 {
		return err
	}
	switch scheme, _, found := strings.Cut(name, "://"); {
	case found:
		return fmt.Errorf("%s is neither a file nor a vmess:// link\nfix: take a link of a server that speaks VMess, not %s", cli.Show(name), cli.Show(scheme))
	case strings.HasPrefix(name, "eyJ"), strings.HasPrefix(name, "ewo"): // base64 of an object's beginning
		return fmt.Errorf("this is no file, but looks like a link that lost its beginning\nfix: put vmess:// before it")
	}
	return err
}

// findConfig looks for a configuration where a command finds it unnamed. The
// error says how to give that command one.
func findConfig(cmd *cobra.Command) (string, error) {
	places := []string{"config.json"}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "vmess-local", "config.json"))
	}
	for _, p := range places {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
	}
	name := cmd.CommandPath()
	fixes := []string{name + " -c FILE with a copy of config.example.json that you filled in"}
	if strings.Contains(cmd.Use, "LINK") {
		fixes = slices.Insert(fixes, 0, name+" 'vmess://…' with the share link of your server")
	}
	if cmd.Name() == "run" {
		fixes = append(fixes, "vmess-local demo, which needs neither")
	}
	return "", fmt.Errorf("no configuration found: looked for %s\nfix: %s", strings.Join(places, " and "), strings.Join(fixes, "\n  or "))
}
