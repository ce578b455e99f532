package awake

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inNamespace is set in the environment of the test that runs in a network of
// its own.
const inNamespace = "AWAKE_TEST_IN_NAMESPACE"

// TestKernelTells: on a Linux system a new address, and a new way out, are
// noticed within a moment. The test runs itself again in a network namespace.
func TestKernelTells(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestKernelTells$", "-test.v")
		again.Env = append(os.Environ(), inNamespace+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := again.CombinedOutput()
		if _, ran := err.(*exec.ExitError); err != nil && !ran {
			lacking(t, fmt.Sprintf("no network namespaces here: %v", err))
		}
		if err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		lacking(t, "there is no ip(8)")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	run("link", "set", "lo", "up")

	events := make(chan Event, 8)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var began sync.Once
	looked := make(chan struct{})
	w := &Watcher{Addresses: func() Addresses {
		defer began.Do(func() { close(looked) })
		return Current()
	}}
	go func() {
		defer close(done)
		w.Watch(ctx, func(e Event) { events <- e })
	}()
	defer func() { cancel(); <-done }()
	<-looked
	for i, change := range [][]string{
		{"addr", "add", "10.9.8.6/32", "dev", "lo"}, // the watcher may not listen yet
		{"addr", "add", "10.9.8.7/32", "dev", "lo"},
		{"route", "add", "default", "dev", "lo", "src", "10.9.8.7"},
		{"addr", "del", "10.9.8.6/32", "dev", "lo"},
		{"addr", "del", "10.9.8.7/32", "dev", "lo"},
	} {
		start := time.Now()
		run(change...)
		select {
		case e := <-events:
			if took := time.Since(start); e != (Event{Moved: true}) || i > 0 && took > tick-time.Second {
				t.Errorf("%v: %+v after %v", change, e, took)
			}
		case <-time.After(2 * tick):
			t.Errorf("%v was not noticed", change)
		}
	}
	if seen := Current(); len(seen) > 0 {
		t.Errorf("at the end: %v", seen)
	}
}

// lacking leaves out a test that cannot be done here, or fails it with CI=true.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("not tested, but CI=true asks for all tests: %s", what)
	}
	t.Skipf("not tested: %s", what)
}
