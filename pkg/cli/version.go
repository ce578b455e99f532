package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version describes the build: module version or commit, Go version, system.
func Version(name string) string {
	info, _ := debug.ReadBuildInfo()
	return fmt.Sprintf("%s %s %s %s/%s", name, revision(info), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// revision is the module's version, else the commit it was built from.
func revision(info *debug.BuildInfo) string {
	version, modified := "unknown", ""
	if info == nil {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v // says "+dirty" itself
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			version = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	return version + modified
}
