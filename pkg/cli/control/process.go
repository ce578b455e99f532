package control

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// A Process is one that runs a program, whether or not its socket is in reach.
type Process struct {
	PID int
	// Own reports whether it is the caller's.
	Own bool
	// Unit is the systemd unit that runs it, if one of its name does; UserUnit
	// is whether that is of a user's systemd.
	Unit     string
	UserUnit bool
	// RuntimeDir is its XDG_RUNTIME_DIR, where Known; "" is that it has none.
	RuntimeDir string
	Known      bool
}

// Stopped reports whether a process is halted by a signal, as by Ctrl-Z. It is
// false where the system does not show that.
func Stopped(pid int) bool { return stopped("/proc", pid) }

func stopped(proc string, pid int) bool {
	stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// "PID (NAME) STATE …", and the name may hold anything.
	_, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return len(rest) > 0 && (rest[0] == 'T' || rest[0] == 't')
}

// Processes returns the processes that run a program's run command, as far as
// the system shows them: those of the caller if there are any, else others'.
func Processes(program string) []Process { return processes("/proc", program) }

func processes(proc, program string) []Process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var own, others []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		args := strings.Split(readText(filepath.Join(dir, "cmdline")), "\x00")
		if readText(filepath.Join(dir, "comm")) != program+"\n" || len(args) < 2 || args[1] != "run" {
			continue
		}
		p := Process{PID: pid, Own: ownFile(dir)}
		p.Unit, p.UserUnit = unitOf(readText(filepath.Join(dir, "cgroup")), program)
		if environ := readText(filepath.Join(dir, "environ")); environ != "" {
			p.Known = true
			for _, variable := range strings.Split(environ, "\x00") {
				if value, ok := strings.CutPrefix(variable, "XDG_RUNTIME_DIR="); ok {
					p.RuntimeDir = value
				}
			}
		}
		if p.Own {
			own = append(own, p)
		} else {
			others = append(others, p)
		}
	}
	if len(own) > 0 {
		return own
	}
	return others
}

// unitOf finds the unit in the text of /proc/PID/cgroup: the innermost group,
// when it bears the program's name. Others, like a terminal's or cron's, do not
// stand for the program.
func unitOf(cgroup, program string) (unit string, user bool) {
	for line := range strings.Lines(cgroup) {
		group := strings.TrimSpace(line)
		name := path.Base(group)
		if strings.HasSuffix(name, ".service") && strings.HasPrefix(name, program) {
			return strings.TrimSuffix(name, ".service"), strings.Contains(group, "/user@")
		}
	}
	return "", false
}

func readText(file string) string {
	data, _ := os.ReadFile(file)
	return string(data)
}
