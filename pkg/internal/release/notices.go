package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A module is one whose code is linked into the programs.
type module struct {
	path, version string
	licences      []string // SPDX identifiers
	notices       []notice
}

// A notice is a file that must travel with the code it came with.
type notice struct{ name, text string }

// A linkedPackage is one of go list's answer.
type linkedPackage struct {
	ImportPath, Dir, Root string
	Standard              bool
	Module                *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// standard is what the standard library is called in package lists.
const standard = "stdlib"

// linked returns the modules, and the standard library, that are linked into
// the programs for a platform, with their notices. It is an error when one has
// none, or one that nobody has judged yet.
func linked(ctx context.Context, g goTool, p platform) ([]module, error) {
	out, err := g.output(ctx, p, "list", "-deps", "-json=ImportPath,Dir,Root,Standard,Module", "./cmd/...")
	if err != nil {
		return nil, err
	}
	version, err := g.output(ctx, p, "env", "GOVERSION")
	if err != nil {
		return nil, err
	}
	var packages []linkedPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p linkedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return collect(packages, strings.TrimPrefix(strings.TrimSpace(string(version)), "go"))
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// collect gathers the notices of all packages that are not ours.
func collect(packages []linkedPackage, goVersion string) ([]module, error) {
	found := map[string]*module{}
	for _, p := range packages {
		var m *module
		var top string
		switch {
		case p.Standard:
			m, top = &module{path: standard, version: goVersion}, p.Root
			p.Dir = p.Root // one licence for all of it
		case p.Module == nil:
			return nil, fmt.Errorf("%s belongs to no module", p.ImportPath)
		case p.Module.Main:
			continue
		default:
			m, top = &module{path: p.Module.Path, version: p.Module.Version}, p.Module.Dir
		}
		if known := found[m.path]; known != nil {
			m = known
		}
		found[m.path] = m
		if err := m.collect(p.Dir, top); err != nil {
			return nil, err
		}
	}
	all := make([]module, 0, len(found))
	for _, m := range found {
		if err := m.judge(); err != nil {
			return nil, err
		}
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

var noticeName = regexp.MustCompile(`(?i)^(LICEN[CS]E|COPYING|NOTICE|PATENTS|COPYRIGHT|AUTHORS)([.-](txt|md|rst|[A-Z0-9-]+))?$`)

// collect adds the notices of the directory dir of a module and of those above
// it, up to the module's own.
func (m *module) collect(dir, top string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("the notices of %s: %w", m.path, err)
		}
		for _, e := range entries {
			if e.IsDir() || !noticeName.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			if err := m.take(top, filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		if dir == top || len(dir) <= len(top) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func (m *module) take(top, path string) error {
	name, err := filepath.Rel(top, path)
	if err != nil {
		return err
	}
	name = filepath.ToSlash(name)
	if slices.ContainsFunc(m.notices, func(n notice) bool { return n.name == name }) {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	m.notices = append(m.notices, notice{name, strings.TrimSpace(string(data)) + "\n"})
	return nil
}

// Errors of modules that must not be given to others like this.
var (
	errNoLicence      = errors.New("there is no licence with it")
	errUnknownLicence = errors.New("nobody has judged its licence yet")
)

// judge names the licences of a module.
func (m *module) judge() error {
	slices.SortFunc(m.notices, func(a, b notice) int { return strings.Compare(a.name, b.name) })
	licence := regexp.MustCompile(`(?i)(^|/)(LICEN[CS]E|COPYING)[^/]*$`)
	found := false
	for _, n := range m.notices {
		if !licence.MatchString(n.name) {
			continue
		}
		found = true
		ids := licencesIn(n.text)
		if len(ids) == 0 {
			return fmt.Errorf("%s: %s: %w", m.path, n.name, errUnknownLicence)
		}
		m.licences = append(m.licences, ids...)
	}
	if !found {
		return fmt.Errorf("%s: %w", m.path, errNoLicence)
	}
	slices.Sort(m.licences)
	m.licences = slices.Compact(m.licences)
	return nil
}

// licencesIn returns the SPDX identifiers of the licences in a text. All those
// it knows let the programs be given away with the notices.
func licencesIn(text string) (ids []string) {
	text = strings.Join(strings.Fields(text), " ")
	has := func(part string) bool { return strings.Contains(text, part) }
	if has("Apache License") && has("Version 2.0") {
		ids = append(ids, "Apache-2.0")
	}
	if has("Permission is hereby granted, free of charge, to any person obtaining a copy") {
		ids = append(ids, "MIT")
	}
	if has("Permission to use, copy, modify, and/or distribute this software") ||
		has("Permission to use, copy, modify, and distribute this software") {
		ids = append(ids, "ISC")
	}
	if has("Redistribution and use in source and binary forms") {
		if has("Neither the name") {
			ids = append(ids, "BSD-3-Clause")
		} else {
			ids = append(ids, "BSD-2-Clause")
		}
	}
	return ids
}

// noticesText is the file of notices that travels with the programs.
func noticesText(modules []module) []byte {
	var b bytes.Buffer
	b.WriteString("The programs contain code of others, with these licences and notices.\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "\n%s\n%s %s (%s)\n%[1]s\n", strings.Repeat("=", 72), m.path, m.version, strings.Join(m.licences, ", "))
		for _, n := range m.notices {
			fmt.Fprintf(&b, "\n-- %s\n\n%s", n.name, n.text)
		}
	}
	return b.Bytes()
}
