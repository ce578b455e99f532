package program

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"vmess-local/pkg/control"
)

// NewReloadCommand returns the command that asks the running program of a name
// to read its configuration again; changes says what that takes over.
func NewReloadCommand(name, changes string) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running " + name + " read its configuration again",
		Long: `Reload asks the ` + name + ` that you run to read its configuration file again.
The file is checked first: on any mistake, which is told here with its place,
all stays as it is. SIGHUP does the same, where there is one.

` + changes,
		Example: "  " + name + " reload",
		Args:    NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := control.AskReload(cmd.Context(), name)
			for _, text := range done {
				fmt.Fprintln(cmd.OutOrStdout(), "reloaded:", text)
			}
			switch {
			case errors.Is(err, control.ErrNobody):
				return fmt.Errorf("no %s of yours is running\nfix: start it with %s run -c FILE", name, name)
			case errors.Is(err, control.ErrKept):
				return &UsageError{err}
			}
			return err
		},
	}
}
