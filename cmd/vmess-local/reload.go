package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/control"
	"vmess-local/pkg/program"
)

// The words between "reload" and a running client.
const (
	reloadQuestion = "reload"
	reloadDone     = "reloaded "
	reloadKept     = "kept "
)

func newReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running proxy read its configuration again",
		Long: `Reload asks the vmess-local that you run to read its configuration file again.
The file is checked first: on any mistake, which is told here with its place,
all stays as it is. Connections that are open go on as they were. A change of
"log" needs a restart. Where there is a SIGHUP, it does the same.`,
		Example: "  vmess-local reload",
		Args:    program.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := control.Dir("vmess-local", os.LookupEnv)
			if err != nil {
				return err
			}
			answers, err := control.Ask(cmd.Context(), dir, reloadQuestion)
			if errors.Is(err, control.ErrNobody) {
				return errors.New("no vmess-local of yours is running\nfix: start it with vmess-local run -c FILE")
			}
			if err != nil {
				return err
			}
			return tellReloads(cmd.OutOrStdout(), answers)
		},
	}
}

// tellReloads prints what became of each running client.
func tellReloads(w io.Writer, answers map[string]string) error {
	var kept []string
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		answer := answers[name]
		if done, ok := strings.CutPrefix(answer, reloadDone); ok {
			fmt.Fprintln(w, "reloaded:", done)
			continue
		}
		kept = append(kept, strings.TrimPrefix(answer, reloadKept))
	}
	if len(kept) > 0 {
		return &program.UsageError{Err: errors.New(strings.Join(kept, "\n"))}
	}
	return nil
}

// A reloader reads the configuration of a running client again.
type reloader struct {
	client *client.Client
	log    *slog.Logger
	load   func() (*config.Client, error) // nil where it cannot be read again
	now    *config.Client

	mu sync.Mutex
}

var errOnce = errors.New("config.unreadable: the configuration came from a link or from standard input, which cannot be read again\nfix: write it to a file (vmess-local link import) and start with -c FILE")

// reload returns what "vmess-local reload" is told.
func (r *reloader) reload(context.Context, string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errOnce
	if r.load != nil {
		err = r.again()
	}
	if err != nil {
		r.log.Error("not reloaded, all stays as it was: " + err.Error())
		return reloadKept + err.Error()
	}
	return reloadDone + r.client.Addr().String()
}

func (r *reloader) again() error {
	cfg, err := r.load()
	if err != nil {
		return unusable(err)
	}
	if err := r.client.Reload(cfg); err != nil {
		return startError(placed(cfg, err))
	}
	if cfg.Log != r.now.Log {
		r.log.Warn(`"log" has changed, which takes effect at the next start`)
	}
	r.now = cfg
	return nil
}

// serve runs the client, and reloads it when it is asked to.
func (r *reloader) serve(ctx context.Context) error {
	dir, err := control.Dir("vmess-local", os.LookupEnv)
	if err == nil {
		var s *control.Server
		if s, err = control.Serve(dir, strconv.Itoa(os.Getpid()), r.reload); err == nil {
			defer s.Close()
		}
	}
	if err != nil {
		r.log.Debug("vmess-local reload will not work", "err", err)
	}
	defer onHangup(func() { r.reload(ctx, reloadQuestion) })()
	return r.client.Run(ctx)
}
