package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vmess-local/pkg/client"
	"vmess-local/pkg/config"
	"vmess-local/pkg/program"
	"vmess-local/pkg/sharelink"
)

func newRunCommand() *cobra.Command {
	var (
		file string
		log  program.LogFlags
	)
	cmd := &cobra.Command{
		Use:   "run [-c FILE | LINK]",
		Short: "Run the local proxy",
		Long: `Run opens the local port and carries its connections to the server until Ctrl-C
(which lets open connections end for limits.drain; a second one leaves at once).

The configuration is FILE ("-" is standard input), or a vmess:// share link with
defaults for all else; without either ./config.json, then vmess-local/config.json
in your configuration directory. config.example.json explains every key.

V2RAY_VMESS_AEAD_DISABLED=true makes it speak the legacy MD5 authentication that
servers older than V2Ray 4.28.1 need. Newer servers refuse it.`,
		Example: `  vmess-local run -c config.json
  vmess-local run 'vmess://eyJ2IjoiMiIsImFkZCI6…'
  vmess-local run -c - < config.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" && len(args) > 0 {
				return program.Usagef("give either -c FILE or a link, not both")
			}
			source := file
			if len(args) > 0 {
				source = args[0]
			}
			cfg, warnings, err := loadConfig(source, cmd.InOrStdin())
			if err != nil {
				return &program.UsageError{Err: err}
			}
			logger, err := log.New(cmd.ErrOrStderr(), cfg.Log.Level, cfg.Log.Format)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				logger.Warn(w)
			}
			c, err := client.New(cfg, client.Options{Log: logger})
			if err != nil {
				return err
			}
			return c.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, a link, or - for standard input")
	log.Add(cmd)
	return cmd
}

// loadConfig reads a configuration from a file, standard input or a link; ""
// looks in the usual places. Warnings are for the log.
func loadConfig(source string, stdin io.Reader) (cfg *config.Client, warnings []string, err error) {
	switch {
	case strings.HasPrefix(strings.ToLower(strings.TrimSpace(source)), "vmess://"):
		cfg, err = fromLink(source)
		return cfg, nil, err
	case source == "-":
		data, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("read standard input: %w", err)
		}
		if text := strings.TrimSpace(string(data)); strings.HasPrefix(strings.ToLower(text), "vmess://") {
			cfg, err = fromLink(text)
			return cfg, nil, err
		}
		cfg, err = config.ParseClient("standard input", data)
		return cfg, nil, err
	case source == "":
		if source, err = findConfig(); err != nil {
			return nil, nil, err
		}
	}
	data, warnings, err := config.ReadFile(source)
	if err != nil {
		return nil, nil, err
	}
	cfg, err = config.ParseClient(source, data)
	return cfg, warnings, err
}

func fromLink(link string) (*config.Client, error) {
	server, err := sharelink.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("the link: %w", err)
	}
	cfg := config.DefaultClient()
	cfg.Server = *server
	// What a link cannot say well is found by the same checks as in a file.
	return config.ParseClient("the link", config.MarshalClient(cfg))
}

func findConfig() (string, error) {
	places := []string{"config.json"}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "vmess-local", "config.json"))
	}
	for _, p := range places {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
	}
	return "", fmt.Errorf(`no configuration found: looked for %s
with a share link:     vmess-local run 'vmess://…'
with a file:           copy config.example.json, fill in "server", vmess-local run -c FILE
without any server:    vmess-local demo`, strings.Join(places, " and "))
}
