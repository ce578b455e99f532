package cli

import (
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli/logging"
)

// LogFlags are the flags by which the command line overrides the
// configuration's log.
type LogFlags struct{ level, format, file string }

// Add adds the flags to a command.
func (f *LogFlags) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "", "log from this `LEVEL` on: debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, formatFlag, "", "log in this `FORMAT`: text for people, json for programs")
	Choices(cmd, "log-level", "debug", "info", "warn", "error")
	Choices(cmd, formatFlag, "text", "json")
	cmd.Flags().StringVar(&f.file, "log-file", "", "log into this `FILE`, and to stderr only that it is ready and where the status page is")
}

// Check refuses impossible flags, before anything else is looked at.
func (f *LogFlags) Check() error {
	if f.level != "" {
		if _, err := logging.ParseLevel(f.level); err != nil {
			return Usagef("--log-level: saw %s\nfix: write debug, info, warn or error", Show(f.level))
		}
	}
	if f.format != "" && f.format != "text" && f.format != "json" {
		return Usagef("--%s: saw %s\nfix: write text or json", formatFlag, Show(f.format))
	}
	return nil
}

// New makes the log from the configuration's choice and the flags, which
// [LogFlags.Check] has passed. What the command fails with later is told in
// the same format.
func (f *LogFlags) New(w io.Writer, level, format, file string) (*Log, error) {
	l := &Log{flags: *f, w: w}
	next, err := l.Next(level, format, file)
	if err != nil {
		return nil, err
	}
	f.format = next.format
	l.to, l.file = logging.NewSwappableHandler(next.handler), next.file
	l.Logger = slog.New(l.to)
	return l, nil
}

// A Log is a program's log, which can be changed while it is in use.
type Log struct {
	*slog.Logger
	flags LogFlags
	w     io.Writer
	to    *logging.SwappableHandler

	mu   sync.Mutex
	file *logging.File // nil without one
}

// Next makes ready what the configuration chooses now; flags win as they did at
// the start. The caller takes it over by Use, or drops it. A log file is opened
// anew even if it is the same: who moved it aside wants that.
func (l *Log) Next(level, format, file string) (*NextLog, error) {
	n := &NextLog{log: l, format: orElse(l.flags.format, format)}
	least, err := logging.ParseLevel(orElse(l.flags.level, level))
	if err != nil {
		return nil, &UsageError{err}
	}
	asJSON := n.format == "json"
	if file = orElse(l.flags.file, file); file == "" {
		n.handler = logging.New(l.w, least, asJSON)
		return n, nil
	}
	if n.file, err = logging.OpenFile(file); err != nil {
		return nil, Usagef("%s\nfix: name a file that you may write, by \"log.file\" or --log-file", err)
	}
	n.handler = logging.ToFile(n.file, l.w, least, asJSON)
	return n, nil
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// A NextLog is what a [Log] could be.
type NextLog struct {
	log     *Log
	format  string
	handler slog.Handler
	file    *logging.File
}

// Use makes it the log.
func (n *NextLog) Use() {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	old := n.log.file
	n.log.to.Set(n.handler)
	n.log.file = n.file
	if old != nil {
		_ = old.Close()
	}
}

// Drop gives up what Use would take over.
func (n *NextLog) Drop() {
	if n.file != nil {
		_ = n.file.Close()
	}
}
