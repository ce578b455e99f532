package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// The programs, each of which has a package of its name under cmd.
const (
	clientName  = "vmess-local"
	serverName  = "vmess-server"
	projectName = clientName
)

var programs = []string{clientName, serverName}

// A platform is what a build is for.
type platform struct {
	os, arch string
	arm      string // GOARM, with arch arm
	debian   string // Debian's name of it; "" where there is no package
}

// String is the platform as names of archives have it.
func (p platform) String() string {
	if p.arm != "" {
		return p.os + "_" + p.arch + "v" + p.arm
	}
	return p.os + "_" + p.arch
}

// platforms are those that a release is made for.
func platforms() []platform {
	return []platform{
		{os: "linux", arch: "amd64", debian: "amd64"},
		{os: "linux", arch: "arm64", debian: "arm64"},
		{os: "linux", arch: "arm", arm: "7", debian: "armhf"},
		{os: "windows", arch: "amd64"},
		{os: "windows", arch: "arm64"},
		{os: "darwin", arch: "amd64"},
		{os: "darwin", arch: "arm64"},
		{os: "freebsd", arch: "amd64"},
		{os: "freebsd", arch: "arm64"},
	}
}

// host is the platform that this runs on.
func host() platform { return platform{os: runtime.GOOS, arch: runtime.GOARCH} }

// A goTool runs the go command in the project's directory, the same way
// whatever the environment says.
type goTool struct{ dir string }

func (g goTool) output(ctx context.Context, p platform, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=",
		"GOOS="+p.os, "GOARCH="+p.arch, "GOARM="+p.arm, "GOAMD64=v1", "GOARM64=v8.0")
	return outputOf(cmd)
}

// outputOf runs a command, and adds to an error what it said.
func outputOf(cmd *exec.Cmd) ([]byte, error) {
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// build builds both programs for a platform into a directory. The bytes depend
// on the sources, the version of Go and the platform only.
func (g goTool) build(ctx context.Context, p platform, into string) error {
	_, err := g.output(ctx, p, "build", "-buildvcs=auto", "-trimpath", "-tags=nethttpomithttp2", "-ldflags=-s -w", "-o", into+string(filepath.Separator), "./cmd/...")
	return err
}

// versionOf returns the version that a program built by build tells of itself.
func versionOf(file string) (string, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return "", err
	}
	if info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel", nil
	}
	return info.Main.Version, nil
}

// executable is a program's file name on a platform.
func (p platform) executable(name string) string {
	if p.os == "windows" {
		return name + ".exe"
	}
	return name
}

// errNoTime is returned where there is neither SOURCE_DATE_EPOCH nor a commit.
var errNoTime = errors.New("no time to give the files: set SOURCE_DATE_EPOCH")

// releaseTime is SOURCE_DATE_EPOCH, in seconds, else the time of the commit.
func releaseTime(ctx context.Context, dir, epoch string) (time.Time, error) {
	if epoch == "" {
		cmd := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct")
		cmd.Dir = dir
		out, err := outputOf(cmd)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: %w", errNoTime, err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
