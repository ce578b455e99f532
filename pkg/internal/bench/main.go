// Command bench measures vmess-local and vmess-server against V2Ray, side by
// side on this machine and nowhere else: it starts real V2Ray as server and as
// the rival client, nginx for wss, our own programs as they are released, and
// holds destinations and load itself, with no outside network. What is compared
// is measured in turns, round by round, because a shared machine changes its
// speed from minute to minute: the figure that counts is the median of the
// ratios within the rounds. docs/performance.md says what each row means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What the program is when it starts itself.
const (
	modeRelay  = "relay"
	modeClient = "client"
)

// A part is a group of measurements that can be made alone.
type part struct {
	name string
	run  func(ctx context.Context, l *lab, p plan, book *ledger) error
}

func parts() []part {
	return []part{
		{"cpu", partCPU},
		{"server", partServer},
		{"syscalls", partSyscalls},
		{"conn", partConn},
		{"mux", partMux},
		{"udp", partUDP},
		{"rtt", partRTT},
		{"page", partPage},
		{"idle", partIdle},
		{"rest", partRest},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	switch {
	case !supported:
		return errors.New("needs Linux: what programs use is read from /proc")
	case len(args) == 2 && args[0] == modeRelay:
		return runRelay(args[1])
	case len(args) == 3 && args[0] == modeClient:
		return runClient(args[1], args[2])
	}
	o, err := parseOptions(args, os.Getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	return o.bench(ctx, stdout, stderr)
}

// options are what the command line and the environment ask for.
type options struct {
	plan
	parts    []part
	json     string
	profiles string // a directory: make profiles in place of measurements
	top      int
}

// parseOptions reads flags; the environment's BENCH and ROUNDS are the
// defaults of two of them.
func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (*options, error) {
	rounds := 3
	if text := getenv("ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("ROUNDS: saw %q; want a whole number", text)
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := new(options)
	which := flags.String("parts", getenv("BENCH"), "what to measure, with commas between (or BENCH): "+partNames()+"; empty: all")
	flags.IntVar(&o.rounds, "rounds", rounds, "how often (or ROUNDS)")
	volume := flags.Int64("mib", 256, "size of a transfer in MiB")
	flags.IntVar(&o.tunnels, "tunnels", defaultTunnels(), "how many idle tunnels to weigh")
	flags.IntVar(&o.short, "connections", 1000, "how many short connections")
	flags.IntVar(&o.trips, "trips", 10000, "how many UDP round trips")
	flags.StringVar(&o.json, "json", filepath.Join("dist", "bench.json"), "`file` for all samples")
	flags.StringVar(&o.profiles, "profile", "", "make CPU profiles of our client in this `directory`, of the parts cpu and udp, and measure nothing")
	flags.IntVar(&o.top, "top", 30, "lines of each profile")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.volume = *volume * mib
	if flags.NArg() > 0 || o.rounds < 1 || o.volume < 1 || o.tunnels < 1 || o.short < 1 || o.trips < 1 {
		return nil, errors.New("there is an argument too many, or a number below 1")
	}
	var err error
	o.parts, err = chooseParts(*which)
	return o, err
}

// chooseParts returns the named parts in the order in which they are always
// measured.
func chooseParts(which string) ([]part, error) {
	names := strings.FieldsFunc(which, func(r rune) bool { return r == ',' || r == ' ' })
	all := parts()
	for _, n := range names {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == n }) {
			return nil, fmt.Errorf("there is no part %q; want some of %s", n, partNames())
		}
	}
	if len(names) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(p part) bool { return !slices.Contains(names, p.name) }), nil
}

// defaultTunnels is 5,000 where the limit on open files lets a proxy hold two
// for each, and 2,000 or what there is where it does not.
func defaultTunnels() int {
	const usual, fewer, spare = 5000, 2000, 500
	switch most := (openFiles() - spare) / 2; {
	case most >= usual:
		return usual
	default:
		return max(1, min(most, fewer))
	}
}

// bench measures and prints the table. The parts that were measured before one
// failed are in it, too.
func (o *options) bench(ctx context.Context, stdout, stderr io.Writer) (err error) {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	defer context.AfterFunc(ctx, l.open.closeAll)() // whatever is under way fails
	if o.profiles != "" {
		return makeProfiles(ctx, l, o.parts, o.profiles, o.top, stdout)
	}
	m := l.machine(ctx, o.rounds)
	book := new(ledger)
	var failed error
	for _, p := range o.parts {
		begin := time.Now()
		failed = p.run(ctx, l, o.plan, book)
		if ctx.Err() != nil {
			failed = errors.New("interrupted")
		}
		if failed != nil {
			failed = fmt.Errorf("part %s: %w", p.name, failed)
			break
		}
		fmt.Fprintf(stderr, "%s: %.0f s\n", p.name, time.Since(begin).Seconds())
	}
	if err := m.write(stdout); err != nil {
		return err
	}
	if err := writeTable(stdout, book.Rows); err != nil {
		return err
	}
	return errors.Join(failed, writeJSON(o.json, m, book.Rows))
}

// machine asks what is to be known of this machine. What cannot be known is
// left empty.
func (l *lab) machine(ctx context.Context, rounds int) *machine {
	first := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			return ""
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	m := &machine{
		Date:   time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		Commit: "commit " + first("git", "describe", "--always", "--dirty"),
		CPU:    fileField("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
		Kernel: fileLine("/proc/sys/kernel/osrelease"), TCP: fileLine("/proc/sys/net/ipv4/tcp_congestion_control"),
		Go: runtime.Version(), Rival: first(l.v2ray, "-version"), Nginx: first(l.nginx, "-v"), Rounds: rounds,
	}
	return m
}

func fileLine(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func fileField(name, field string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// closing closes c and joins its error to that of the function that defers it.
func closing(c io.Closer, err *error) { *err = errors.Join(*err, c.Close()) }
