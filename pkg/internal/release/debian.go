package main

import (
	"embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// maintainerScripts are what dpkg runs, as PACKAGE.SCRIPT.
//
//go:embed debian
var maintainerScripts embed.FS

// debianContents is what a package installs.
func (k *kit) debianContents(pkg debianPackage, target platform, bin string, notices []byte) (tree, error) {
	var t tree
	program, err := os.ReadFile(filepath.Join(bin, pkg.name))
	if err != nil {
		return nil, err
	}
	t.add("usr/bin/"+pkg.name, programme, program)
	unit := filepath.Join(k.dir, "docs", "install", filepath.FromSlash(pkg.unit))
	if err := t.copyIn(pkg.unitDir+"/"+pkg.name+".service", unit); err != nil {
		return nil, err
	}
	if pkg.config != "" {
		t.add(pkg.config, secretsDir, nil)
	}
	doc := "usr/share/doc/" + pkg.name + "/"
	for _, example := range pkg.examples {
		if err := t.copyIn(doc+"examples/"+path.Base(example), filepath.Join(k.dir, filepath.FromSlash(example))); err != nil {
			return nil, err
		}
	}
	t.add("usr/share/bash-completion/completions/"+pkg.name, plainFile, k.shells[pkg.name]["bash"])
	t.add("usr/share/zsh/vendor-completions/_"+pkg.name, plainFile, k.shells[pkg.name]["zsh"])
	t.add("usr/share/fish/vendor_completions.d/"+pkg.name+".fish", plainFile, k.shells[pkg.name]["fish"])

	licence, err := os.ReadFile(filepath.Join(k.dir, "LICENSE"))
	if err != nil {
		return nil, err
	}
	t.add(doc+"copyright", plainFile, copyrightFile(string(licence)))
	for name, data := range map[string][]byte{
		"usr/share/man/man1/" + pkg.name + ".1": k.pages[pkg.name],
		doc + "changelog":                       changelog(pkg.name, debianVersion(k.version), k.at),
		doc + noticesFile:                       notices,
	} {
		packed, err := compressed(data)
		if err != nil {
			return nil, err
		}
		t.add(name+".gz", plainFile, packed)
	}
	return t, nil
}

func changelog(name, version string, at time.Time) []byte {
	return fmt.Appendf(nil, "%s (%s) unstable; urgency=medium\n\n  * Release %[2]s.\n\n -- %[3]s  %[4]s\n",
		name, version, maintainer, at.Format(time.RFC1123Z))
}

// copyrightFile is Debian's form of the licence (copyright-format 1.0).
func copyrightFile(licence string) []byte {
	var b strings.Builder
	b.WriteString("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n" +
		"Upstream-Name: " + projectName + "\n" +
		"Comment: the licences of the code of others that is linked in are in\n " + noticesFile + ".gz.\n\n" +
		"Files: *\nCopyright: The vmess-local authors\nLicense: Expat\n")
	for line := range strings.SplitSeq(strings.TrimSpace(licence), "\n") {
		if line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return []byte(b.String())
}
