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
	"slices"
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

const (
	profileVolume = 2 * gib // is moved for a profile of a transfer
	profileTrips  = 100_000 // are made for one of datagrams
)

// A specimen is one kind of work that our client is profiled at.
type specimen struct {
	part       string // that measures it
	name, file string
	way        passage
	own        bool // towards our own server
	change     func(*config.Client)
	work       func(s *stage, client *process) error
}

func specimens() []specimen {
	var all []specimen
	for _, kind := range loads(1) {
		all = append(all, specimen{
			part: "cpu",
			name: fmt.Sprintf("%s, %d MiB", kind, profileVolume/mib), file: fmt.Sprintf("%s-%s", kind.way, kind.dir),
			way: kind.way, change: func(*config.Client) {},
			work: func(s *stage, client *process) error {
				_, err := s.measure(client.addr, kind.dir, kind.streams, profileVolume, client)
				return err
			},
		})
	}
	for _, form := range []string{"plain", "xudp"} {
		all = append(all, specimen{
			part: "udp",
			name: fmt.Sprintf("%s, %d UDP round trips, %s", ws, profileTrips, form), file: fmt.Sprintf("%s-udp-%s", ws, form),
			way: ws, own: form == "xudp", change: withUDP(form),
			work: func(s *stage, client *process) error {
				_, _, err := s.converse(client, 1, profileTrips)
				return err
			},
		})
	}
	return all
}

// makeProfiles profiles our client at the work of those parts that have some,
// leaves the profiles in dir and prints their top.
func makeProfiles(ctx context.Context, l *lab, chosen []part, dir string, lines int, w io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, one := range specimens() {
		if !slices.ContainsFunc(chosen, func(p part) bool { return p.name == one.part }) {
			continue
		}
		file := filepath.Join(dir, "client-"+one.file+".prof")
		if err := makeProfile(l, one, file); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "\n== client CPU, %s: %s\n", one.name, file); err != nil {
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

func makeProfile(l *lab, one specimen, file string) (err error) {
	s := l.stage()
	defer closing(s, &err)
	server, err := s.serverFor(one)
	if err != nil {
		return err
	}
	cfg, addr, err := s.ourClientConfig(one.way, server, one.change)
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
	if err := one.work(s, p); err != nil {
		return err
	}
	return p.stop()
}

// serverFor starts what a specimen works with and returns its address.
func (s *stage) serverFor(one specimen) (string, error) {
	if one.own {
		server, err := s.ourServer(one.way)
		if err != nil {
			return "", err
		}
		return server.addr, nil
	}
	far, err := s.far()
	return far[one.way], err
}
