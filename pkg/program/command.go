package program

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"vmess-local/pkg/logline"
)

// Execute runs a command line. What the caller got wrong is a *UsageError.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		return &UsageError{err} // cobra found the command line wanting
	}
	return err
}

// NewVersionCommand returns the command that prints the version.
func NewVersionCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  " + name + " version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), Version(name))
			return err
		},
	}
}

// LogFlags are the flags by which the command line overrides the
// configuration's log.
type LogFlags struct{ level, format string }

// Add adds the flags to a command.
func (f *LogFlags) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "", "log from this `LEVEL` on: debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, "log-format", "", "log for people or programs: `FORMAT` text or json")
}

// New makes the log from the configuration's choice and the flags.
func (f *LogFlags) New(w io.Writer, level, format string) (*slog.Logger, error) {
	if f.level != "" {
		level = f.level
	}
	if f.format != "" {
		format = f.format
	}
	l, err := logline.ParseLevel(level)
	if err != nil {
		return nil, &UsageError{err}
	}
	if format != "text" && format != "json" {
		return nil, Usagef("log format %q: want text or json", format)
	}
	return slog.New(logline.New(w, l, format == "json")), nil
}
