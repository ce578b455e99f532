package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// A package in Debian's binary format 2.0 (deb(5)): an ar archive of the
// format's version, the control files and the contents.

// writeDeb writes a package whose bytes depend on nothing but the arguments.
func writeDeb(w io.Writer, control, contents tree, at time.Time) error {
	var inner [2]bytes.Buffer
	for i, t := range []tree{control, contents} {
		if err := writeTarGz(&inner[i], t, "./", at); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "!<arch>\n"); err != nil {
		return err
	}
	for _, member := range []struct {
		name string
		data []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", inner[0].Bytes()},
		{"data.tar.gz", inner[1].Bytes()},
	} {
		if err := writeMember(w, member.name, member.data, at); err != nil {
			return err
		}
	}
	return nil
}

// writeMember writes a member of an ar archive, which begins at an even place.
func writeMember(w io.Writer, name string, data []byte, at time.Time) error {
	if _, err := fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, at.Unix(), 0, 0, 0o100644, len(data)); err != nil {
		return err
	}
	if len(data)%2 == 1 {
		data = append(data[:len(data):len(data)], '\n')
	}
	_, err := w.Write(data)
	return err
}

// md5sums is the control file of that name, by which dpkg finds changed files.
func md5sums(t tree) []byte {
	var b bytes.Buffer
	for _, f := range t.complete() {
		if !f.mode.IsDir() {
			fmt.Fprintf(&b, "%x  %s\n", md5.Sum(f.data), f.name)
		}
	}
	return b.Bytes()
}

// installedSize is what dpkg tells of the room needed, in KiB: files rounded
// up, and one for each directory (deb-substvars(5)).
func installedSize(t tree) (kib int) {
	for _, f := range t.complete() {
		kib += max(1, (len(f.data)+1023)/1024)
	}
	return kib
}

// debianVersion turns a version of Go's into one of Debian's that sorts the
// same way: what comes before a release comes before it there, too.
func debianVersion(v string) string {
	v = strings.TrimPrefix(v, "v")
	if v == "devel" {
		return "0~devel"
	}
	release, pre, isPre := strings.Cut(v, "-")
	if !isPre {
		return release
	}
	return release + "~" + strings.ReplaceAll(pre, "-", ".")
}

// A debianPackage describes one of the packages.
type debianPackage struct {
	name     string // also the program's
	short    string
	long     string
	depends  string
	unit     string // the service's file within docs/install
	unitDir  string // where it goes
	config   string // directory of the configuration, "" for none
	scripts  []string
	examples []string // files of the project
}

func debianPackages() []debianPackage {
	return []debianPackage{
		{
			name:  clientName,
			short: "local SOCKS5 and HTTP proxy over VMess in WebSocket",
			long: ` vmess-local opens a local port for browsers and other programs, speaking
 SOCKS5, SOCKS4a and HTTP proxy, and carries every connection as VMess in a
 WebSocket to a V2Ray, Xray, sing-box, mihomo or vmess-server.`,
			unit: "systemd/vmess-local.service", unitDir: "usr/lib/systemd/user",
			examples: []string{"config.example.json"},
		},
		{
			name:  serverName,
			short: "VMess over WebSocket server",
			long: ` vmess-server serves VMess in WebSocket to vmess-local, V2Ray, Xray, sing-box
 and mihomo. The service runs as a user of its own, once there is a
 configuration.`,
			depends: "adduser",
			unit:    "systemd/vmess-server.service", unitDir: "usr/lib/systemd/system",
			config: "etc/vmess-server", scripts: []string{"postinst", "prerm", "postrm"},
			examples: []string{
				exampleOfServer, "docs/install/certbot-deploy-hook.sh", "docs/install/haproxy.cfg", "docs/install/nginx.conf",
			},
		},
	}
}

const maintainer = "The vmess-local authors <vmess-local@localhost>"

// debian makes the package for a platform, and returns its file's name.
func (k *kit) debian(pkg debianPackage, target platform, bin string, notices []byte) (name string, data []byte, err error) {
	contents, err := k.debianContents(pkg, target, bin, notices)
	if err != nil {
		return "", nil, err
	}
	version := debianVersion(k.version)
	var head bytes.Buffer
	fmt.Fprintf(&head, "Package: %s\nVersion: %s\nSection: net\nPriority: optional\nArchitecture: %s\nMaintainer: %s\nInstalled-Size: %d\n",
		pkg.name, version, target.debian, maintainer, installedSize(contents))
	if pkg.depends != "" {
		fmt.Fprintf(&head, "Depends: %s\n", pkg.depends)
	}
	fmt.Fprintf(&head, "Description: %s\n%s\n", pkg.short, pkg.long)
	var control tree
	control.add("control", plainFile, head.Bytes())
	control.add("md5sums", plainFile, md5sums(contents))
	for _, script := range pkg.scripts {
		text, err := maintainerScripts.ReadFile(path.Join("debian", pkg.name+"."+script))
		if err != nil {
			return "", nil, err
		}
		control.add(script, programme, text)
	}
	var b bytes.Buffer
	err = writeDeb(&b, control, contents, k.at)
	return fmt.Sprintf("%s_%s_%s.deb", pkg.name, version, target.debian), b.Bytes(), err
}
