package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A plan is what a release is made from.
type plan struct {
	goTool
	out       string
	platforms []platform
	at        time.Time // of all files
}

// A kit is what the archives and packages of all platforms have in common.
type kit struct {
	plan
	version string
	pages   map[string][]byte            // manual pages, by program
	shells  map[string]map[string][]byte // completions, by program and shell
}

// shells are those that the programs print completions for, with the names of
// the files.
var shells = map[string]string{"bash": "%s.bash", "zsh": "_%s", "fish": "%s.fish", "powershell": "%s.ps1"}

// release makes all files of a release, and returns their names.
func release(ctx context.Context, p plan) (made []string, err error) {
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "vmess-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	k, err := newKit(ctx, p, filepath.Join(scratch, "host"))
	if err != nil {
		return nil, err
	}
	var all []module
	for _, target := range p.platforms {
		bin := filepath.Join(scratch, target.String())
		if err := p.build(ctx, target, bin); err != nil {
			return made, err
		}
		modules, err := linked(ctx, p.goTool, target)
		if err != nil {
			return made, err
		}
		all = append(all, modules...)
		files, err := k.files(target, bin, noticesText(modules))
		if err != nil {
			return made, err
		}
		for _, f := range files {
			if err := p.write(f.name, f.data, &made); err != nil {
				return made, err
			}
		}
	}
	bom, err := billOf(k.version, all, p.at)
	if err != nil {
		return made, err
	}
	if err := p.write(projectName+"_"+k.version+".cdx.json", bom, &made); err != nil {
		return made, err
	}
	sums, err := p.sums(made)
	if err != nil {
		return made, err
	}
	return made, p.write("SHA256SUMS", sums, &made)
}

func (p plan) write(name string, data []byte, made *[]string) error {
	*made = append(*made, name)
	return os.WriteFile(filepath.Join(p.out, name), data, 0o644)
}

// sums is the file that sha256sum -c checks.
func (p plan) sums(names []string) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(slices.Values(names)) {
		data, err := os.ReadFile(filepath.Join(p.out, name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	return b.Bytes(), nil
}

// newKit builds the programs for this machine, into bin, and asks them for
// their manual pages and completions.
func newKit(ctx context.Context, p plan, bin string) (*kit, error) {
	if err := p.build(ctx, host(), bin); err != nil {
		return nil, err
	}
	k := &kit{plan: p, pages: map[string][]byte{}, shells: map[string]map[string][]byte{}}
	var err error
	for _, name := range programs {
		file := filepath.Join(bin, host().executable(name))
		if k.version, err = versionOf(file); err != nil {
			return nil, err
		}
		if k.pages[name], err = outputOf(exec.CommandContext(ctx, file, "man")); err != nil {
			return nil, err
		}
		k.shells[name] = map[string][]byte{}
		for shell := range shells {
			if k.shells[name][shell], err = outputOf(exec.CommandContext(ctx, file, "completion", shell)); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// files makes the archive for a platform, and its Debian packages where there
// are some. bin has the programs for it.
func (k *kit) files(target platform, bin string, notices []byte) (tree, error) {
	contents, err := k.archive(target, bin, notices)
	if err != nil {
		return nil, err
	}
	var made tree
	var b bytes.Buffer
	name := strings.Join([]string{projectName, k.version, target.String()}, "_")
	contents = contents.under(name)
	if target.os == "windows" {
		name, err = name+".zip", writeZip(&b, contents, k.at)
	} else {
		name, err = name+".tar.gz", writeTarGz(&b, contents, "", k.at)
	}
	if err != nil {
		return nil, err
	}
	made.add(name, plainFile, b.Bytes())
	if target.debian == "" {
		return made, nil
	}
	for _, pkg := range debianPackages() {
		name, data, err := k.debian(pkg, target, bin, notices)
		if err != nil {
			return nil, fmt.Errorf("the package %s: %w", pkg.name, err)
		}
		made.add(name, plainFile, data)
	}
	return made, nil
}

const (
	noticesFile = "THIRD-PARTY-NOTICES.txt"
	// exampleOfServer is the manual of the server's configuration.
	exampleOfServer = "docs/server.example.json"
)

// archive is what is in the archive for a platform.
func (k *kit) archive(target platform, bin string, notices []byte) (tree, error) {
	var t tree
	at := func(name string) string { return filepath.Join(k.dir, filepath.FromSlash(name)) }
	for _, name := range programs {
		exe := target.executable(name)
		data, err := os.ReadFile(filepath.Join(bin, exe))
		if err != nil {
			return nil, err
		}
		t.add(exe, programme, data)
		t.add("man/"+name+".1", plainFile, k.pages[name])
		for shell, form := range shells {
			t.add("completions/"+fmt.Sprintf(form, name), plainFile, k.shells[name][shell])
		}
	}
	t.add(noticesFile, plainFile, notices)
	for _, name := range []string{"README.md", "LICENSE", "config.example.json"} {
		if err := t.copyIn(name, at(name)); err != nil {
			return nil, err
		}
	}
	return t, t.copyDir("docs", at("docs"))
}
