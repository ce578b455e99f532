package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli/control"
)

// NewReloadCommand returns the command that asks the running program of a name
// to read its configuration again; changes says what that takes over.
func NewReloadCommand(name, changes string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "reload [-c FILE | ADDR]",
		Short: "Reload the running " + name + "'s configuration",
		Long: `Reload asks the ` + name + ` that you run to read its configuration file again.
The file is checked first: on any mistake, which is told here with its place,
all stays as it is. SIGHUP does the same, where there is one.

When several run, all are asked; FILE or ADDR names one by its configuration or
by the address that it listens on. Programs that were started with another
XDG_RUNTIME_DIR, as by systemd, are not found: the error says how to reach them.

` + changes,
		Example: "  " + name + " reload\n  " + name + " reload -c config.json\n  " + name + " reload 127.0.0.1:1080",
		Args:    addressArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := reloading{program: name, file: file}
			if len(args) > 0 {
				r.addr = args[0]
			}
			if file != "" && r.addr != "" {
				return Usagef("a configuration and an address\nfix: give one of them: %s", cmd.UseLine())
			}
			return r.run(cmd)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "only the one that was started with the configuration `FILE`")
	return cmd
}

// addressArg accepts one HOST:PORT or nothing.
func addressArg(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if _, _, err := net.SplitHostPort(args[0]); err == nil {
			return OneArg(cmd, args)
		}
	}
	return NoArgs(cmd, args)
}

// A reloading is one reload command.
type reloading struct {
	program    string
	file, addr string // which instance; both empty: all
	dir        string // of the sockets
}

func (r *reloading) run(cmd *cobra.Command) (err error) {
	if r.dir, err = control.Dir(r.program, os.LookupEnv); err != nil {
		return err
	}
	running, err := control.Instances(cmd.Context(), r.dir)
	if err != nil {
		return err
	}
	if len(running) == 0 {
		return errors.New(r.notFound(control.Processes(r.program), os.LookupEnv))
	}
	asked := r.chosen(running)
	if len(asked) == 0 {
		return r.notChosen(running)
	}
	var failed []string
	mistakes := 0
	for _, i := range asked {
		done, err := r.one(cmd.Context(), i, len(running) > 1)
		if err != nil {
			failed = append(failed, err.Error())
			if errors.Is(err, control.ErrRejected) {
				mistakes++
			}
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), "reloaded:", done)
	}
	switch err := errors.New(strings.Join(failed, "\n")); {
	case len(failed) == 0:
		return nil
	case mistakes == len(failed):
		return &UsageError{err}
	default:
		return err
	}
}

// one reloads an instance and returns what it is called. With several that is
// part of the error, too.
func (r *reloading) one(ctx context.Context, i control.Instance, several bool) (done string, err error) {
	listen, err := control.RequestReload(ctx, r.dir, i.PID)
	switch {
	case err == nil && several:
		return called(control.Instance{PID: i.PID, Listen: listen, Config: i.Config}), nil
	case err == nil:
		return listen, nil
	case errors.Is(err, control.ErrRejected) && several:
		return "", fmt.Errorf("%s: %w", called(i), err)
	case errors.Is(err, control.ErrRejected):
		return "", err
	case errors.Is(err, control.ErrNotRunning):
		return "", fmt.Errorf("%s (process %d) ended before it answered\nfix: start it with %s run -c FILE", r.program, i.PID, r.program)
	case control.Stopped(i.PID):
		return "", fmt.Errorf("%s (process %d) is stopped, as by Ctrl-Z, and answers nothing\nfix: let it go on with fg or kill -CONT %d, then reload", r.program, i.PID, i.PID)
	}
	return "", fmt.Errorf("%s (process %d) runs, and does not answer: %w\nfix: look at its log, or start it again", r.program, i.PID, err)
}

// called names an instance to people.
func called(i control.Instance) string {
	name := i.Listen
	if name == "" {
		name = fmt.Sprintf("process %d, which does not answer", i.PID)
	}
	if i.Config != "" {
		name += " (" + i.Config + ")"
	}
	return name
}

// chosen returns the instances that the command line names.
func (r *reloading) chosen(running []control.Instance) []control.Instance {
	if r.file == "" && r.addr == "" {
		return running
	}
	var all []control.Instance
	for _, i := range running {
		if r.file != "" && sameFile(r.file, i.Config) || r.addr != "" && sameAddress(r.addr, i.Listen) {
			all = append(all, i)
		}
	}
	return all
}

func sameFile(a, b string) bool {
	if full, err := filepath.Abs(a); err == nil && full == b {
		return true
	}
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// sameAddress reports whether an instance that listens on an address is meant
// by another: the port decides where one of the two hosts stands for any.
func sameAddress(meant, listens string) bool {
	host, port, _ := net.SplitHostPort(meant)
	at, atPort, err := net.SplitHostPort(listens)
	if err != nil || port != atPort {
		return false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return host == "" || host == at || net.ParseIP(at).IsUnspecified()
}

func (r *reloading) notChosen(running []control.Instance) error {
	var names []string
	for _, i := range running {
		names = append(names, called(i))
	}
	which := "listens on " + Show(r.addr)
	if r.file != "" {
		which = "was started with " + Show(r.file)
	}
	return fmt.Errorf("no running %s %s\nfix: name one of: %s", r.program, which, strings.Join(names, ", "))
}

// notFound says that there is nothing to ask, and how to reach the processes
// that run elsewhere.
func (r *reloading) notFound(elsewhere []control.Process, lookup func(string) (string, bool)) string {
	if len(elsewhere) == 0 {
		return fmt.Sprintf("no running %s found for this user\nfix: start it with %s run -c FILE", r.program, r.program)
	}
	var fixes []string // each once, with the processes that it is for
	places := make(map[[2]string]int)
	for _, p := range elsewhere {
		command, kill := r.reach(p, lookup)
		i, known := places[[2]string{command, kill}]
		if !known {
			i = len(fixes)
			places[[2]string{command, kill}] = i
			fixes = append(fixes, strings.TrimPrefix(strings.TrimSuffix(command+", or "+kill, ", or "), ", or "))
		}
		if kill != "" {
			fixes[i] += " " + strconv.Itoa(p.PID)
		}
	}
	where := fmt.Sprintf("process %d is out of reach from here", elsewhere[0].PID)
	if len(elsewhere) > 1 {
		where = fmt.Sprintf("%d processes are out of reach from here", len(elsewhere))
	}
	if !elsewhere[0].Own {
		where = fmt.Sprintf("process %d is another user's", elsewhere[0].PID)
		if len(elsewhere) > 1 {
			where = fmt.Sprintf("%d processes are other users'", len(elsewhere))
		}
	}
	return fmt.Sprintf("no running %s found for this user in %s; %s\nfix: %s", r.program, r.dir, where, strings.Join(fixes, "; or "))
}

// reach is the command that reloads a process whose socket is elsewhere, and one
// that does so behind which its number is written; either may be "".
func (r *reloading) reach(p control.Process, lookup func(string) (string, bool)) (command, kill string) {
	here, _ := lookup("XDG_RUNTIME_DIR")
	switch {
	case p.Unit != "" && p.UserUnit && p.Own:
		return "systemctl --user reload " + p.Unit, ""
	case p.Unit != "" && !p.UserUnit:
		return "sudo systemctl reload " + p.Unit, ""
	case !p.Own:
		return "", "sudo kill -HUP"
	case !p.Known || p.RuntimeDir == here:
		return "", "kill -HUP" // its socket is lost, or in another namespace
	case p.RuntimeDir == "":
		return fmt.Sprintf("env -u XDG_RUNTIME_DIR %s reload", r.program), "kill -HUP"
	}
	return fmt.Sprintf("XDG_RUNTIME_DIR=%s %s reload", quoted(p.RuntimeDir), r.program), "kill -HUP"
}

// quoted is text as a shell takes it for one word.
func quoted(text string) string {
	for _, c := range text {
		if !strings.ContainsRune("/._-+:@", c) && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		}
	}
	return text
}
