package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
)

// runClient is our client, as vmess-local runs it, under a CPU profile that is
// written to a file when the process is asked to end. The product itself holds
// no profiler.
func runClient(cfgFile, profile string) (err error) {
	data, err := os.ReadFile(cfgFile)
	if err != nil {
		return err
	}
	cfg, err := config.ParseClient(cfgFile, data)
	if err != nil {
		return err
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err
	}
	out, err := os.Create(profile)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, c.Close())
	}
	defer pprof.StopCPUProfile()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.Run(ctx)
}

// profileVolume is what is moved for a profile.
const profileVolume = 2 * gib

// makeProfiles profiles our client under load, on both ways and in both
// directions, leaves the profiles in dir and prints their top.
func makeProfiles(ctx context.Context, l *lab, dir string, lines int, w io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, kind := range loads(1) {
		file := filepath.Join(dir, fmt.Sprintf("client-%s-%s.prof", kind.way, kind.dir))
		if err := makeProfile(l, kind, file); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "\n== client CPU, %s, %d MiB: %s\n", kind, profileVolume/mib, file); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", fmt.Sprintf("-nodecount=%d", lines), file)
		cmd.Stdout, cmd.Stderr = w, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go tool pprof: %w", err)
		}
	}
	return nil
}

func makeProfile(l *lab, kind load, file string) (err error) {
	s := l.stage()
	defer closing(s, &err)
	far, err := s.far()
	if err != nil {
		return err
	}
	cfg, addr, err := s.ourClientConfig(kind.way, far[kind.way])
	if err != nil {
		return err
	}
	cfgFile := filepath.Join(s.dir, "profiled.json")
	if err := os.WriteFile(cfgFile, cfg, 0o600); err != nil {
		return err
	}
	p, err := s.start(addr, s.self, modeClient, cfgFile, file)
	if err != nil {
		return err
	}
	if _, err := s.measure(p.addr, kind.dir, kind.streams, profileVolume, p); err != nil {
		return err
	}
	return p.stop()
}
