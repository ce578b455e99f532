package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const startPatience = 20 * time.Second

// A process is a started program. Whoever starts it kills it.
type process struct {
	addr    string // where it listens
	ready   time.Duration
	cmd     *exec.Cmd
	logFile string
	done    chan struct{} // closed when it has ended
}

// start runs a program and waits until it accepts connections on addr; ready
// is how long that took. What it says goes to a file in dir.
func start(dir, addr, path string, args ...string) (*process, error) {
	log, err := os.CreateTemp(dir, filepath.Base(path)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{addr: addr, cmd: exec.Command(path, args...), logFile: log.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir, p.cmd.Env = dir, cleanEnv()
	bindToUs(p.cmd)
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the log tells
	}()
	if err := p.waitPort(); err != nil {
		p.kill()
		return nil, err
	}
	p.ready = time.Since(begin)
	return p, nil
}

// waitPort tries to connect again and again, without a long pause: how soon
// the port accepts is one of the figures.
func (p *process) waitPort() error {
	for deadline := time.Now().Add(startPatience); ; {
		if c, err := net.DialTimeout("tcp", p.addr, time.Second); err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it listened: %s", p.cmd.Path, p.said())
		default:
			pause(200 * time.Microsecond)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen on %s: %s", p.cmd.Path, p.addr, p.said())
		}
	}
}

// said returns the end of what the process said.
func (p *process) said() string {
	data, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	const most = 2 * kib
	return strings.TrimSpace(string(data[max(0, len(data)-most):]))
}

// blame says by way of which program something went wrong.
func (p *process) blame(err error) error {
	return fmt.Errorf("by way of %s: %w (it said: %s)", p.cmd.Path, err, p.said())
}

// kill ends the process and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop asks the process to end, and waits for that.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(startPatience):
		p.kill()
		return fmt.Errorf("%s did not end when asked to: %s", p.cmd.Path, p.said())
	}
}

// usage is what a process has used so far.
type usage struct {
	cpu           time.Duration // user and system
	reads, writes int64         // system calls, also those that found nothing
}

func (u usage) minus(before usage) usage {
	return usage{u.cpu - before.cpu, u.reads - before.reads, u.writes - before.writes}
}

// usage asks the system.
func (p *process) usage() (usage, error) {
	cpu, err := cpuTime(p.cmd.Process.Pid)
	if err != nil {
		return usage{}, err
	}
	u := usage{cpu: cpu}
	for field, value := range map[string]*int64{"syscr:": &u.reads, "syscw:": &u.writes} {
		if *value, err = p.number("io", field); err != nil {
			return usage{}, err
		}
	}
	return u, nil
}

// rss is the resident memory in KiB.
func (p *process) rss() (float64, error) {
	n, err := p.number("status", "VmRSS:")
	return float64(n), err
}

// number reads a field of one of the process's files in /proc.
func (p *process) number(file, field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, field)
}

// cleanEnv is the environment without what changes the programs' behaviour.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(strings.ToLower(e), "=")
		if strings.HasPrefix(name, "v2ray") || strings.HasSuffix(name, "_proxy") || strings.HasPrefix(name, "go") {
			continue
		}
		env = append(env, e)
	}
	return env
}

// closers end what was started, the last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) Close() error {
	var err error
	for len(*c) > 0 {
		last := len(*c) - 1
		err = errors.Join(err, (*c)[last]())
		*c = (*c)[:last]
	}
	return err
}

var _ io.Closer = (*closers)(nil)
