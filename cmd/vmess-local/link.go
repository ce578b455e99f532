package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"vmess-local/pkg/cli"
	"vmess-local/pkg/config"
	"vmess-local/pkg/config/sharelink"
	"vmess-local/pkg/host/atomicfile"
)

func newLinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Turn share links into configurations and back",
		Example: `  vmess-local link import 'vmess://…' -o config.json
  vmess-local link export -c config.json --qr`,
	}
	cmd.AddCommand(newLinkImportCommand(), newLinkExportCommand())
	return cmd
}

func newLinkImportCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "import LINK|FILE|- [-o FILE]",
		Short: "Print the configuration for links or other programs' files",
		Long: `Import prints the configuration for the servers that it finds in
  - vmess:// links of all forms, one or many, with other text round them;
  - a subscription, the base64 text that its address answers with;
  - JSON of V2Ray, Xray or sing-box, YAML of Clash or mihomo;
given as an argument, in a file, or with - on standard input. A single server
becomes "server", several become "servers", the first that works is used.
Mux is taken over, routing rules are left out and named. What cannot be used is
listed with its reason, and so is what was corrected: only VMess over WebSocket
is supported.

With -o the configuration goes to a file, which only its owner can read if it is
new, and which stays as it was if nothing can be imported.`,
		Example: `  vmess-local link import 'vmess://…' -o config.json
  vmess-local link import clash.yaml -o config.json
  curl -s https://panel.example/sub | vmess-local link import -
  xclip -o | vmess-local link import -`,
		Args: cli.OneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("no link given\nfix: %s", cmd.UseLine())
			}
			name, data, err := importSource(args[0], cmd.InOrStdin())
			if err != nil {
				return noImport(err)
			}
			out, err := importServers(name, data, cmd.ErrOrStderr())
			if err != nil {
				return noImport(err)
			}
			return writeImport(cmd, file, out)
		},
	}
	cmd.Flags().StringVarP(&file, "out", "o", "-", "write the configuration to this `FILE`; - is standard output")
	return cmd
}

// writeImport writes what was imported, by then whole, to standard output or a file.
func writeImport(cmd *cobra.Command, file string, data []byte) error {
	switch file {
	case "-":
		_, err := cmd.OutOrStdout().Write(data)
		return err
	case "":
		return cli.Usagef("--out: no file is named\nfix: name one, as in -o config.json")
	}
	if err := atomicfile.Write(file, data); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s\n", file)
	return nil
}

// noImport is the usage error of what cannot be imported; it always says what
// to do.
func noImport(err error) error {
	fix := unusableFix(err)
	switch {
	case strings.Contains(err.Error(), "\nfix: "):
		return &cli.UsageError{Err: err}
	case fix != "":
	case errors.Is(err, fs.ErrNotExist):
		fix = "name a file that is there, or give the whole link, in quotation marks, with vmess:// before it"
	case errors.Is(err, fs.ErrPermission):
		fix = "make the file readable for you"
	case errors.Is(err, sharelink.ErrNotVMess):
		fix = "copy the whole link again"
	default:
		fix = "give a vmess:// link, a file with links or another program's configuration, or - for standard input"
	}
	return cli.Usagef("%w\nfix: %s", err, fix)
}

// unusableFix says what to do about servers that were read and cannot be used;
// nothing where the text itself is wrong.
func unusableFix(err error) string {
	var (
		field     *sharelink.FieldError
		providers *sharelink.ProvidersError
	)
	switch {
	case errors.As(err, &field):
		return fmt.Sprintf("correct the field %q, or ask whoever gave you this for a new link", field.Field)
	case errors.As(err, &providers):
		return "import what stands there: " + strings.Join(importCommands(providers.At), "; ")
	case errors.Is(err, sharelink.ErrTransport):
		return "take a link of a server that uses WebSocket: nothing else is spoken here"
	case errors.Is(err, sharelink.ErrProtocol), errors.Is(err, sharelink.ErrUnusable):
		return "take links of servers that speak VMess over WebSocket: nothing else is spoken here"
	case errors.Is(err, sharelink.ErrPage):
		return "open it in a browser, copy the subscription's address there, and import its answer: " + fetchAndImport("ADDRESS")
	}
	return ""
}

// mostLists is how many lists at other addresses a fix names.
const mostLists = 3

// importCommands are what imports the lists at these URLs or in these files.
func importCommands(at []string) []string {
	var commands []string
	for _, place := range at[:min(len(at), mostLists)] {
		place = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, place)
		quoted := "'" + strings.ReplaceAll(place, "'", `'\''`) + "'"
		if strings.Contains(place, "://") {
			commands = append(commands, fetchAndImport(quoted))
		} else {
			commands = append(commands, "vmess-local link import "+quoted)
		}
	}
	return commands
}

func fetchAndImport(address string) string {
	return "curl -s " + address + " | vmess-local link import -"
}

// importSource returns the text to import and what to call it.
func importSource(arg string, stdin io.Reader) (name string, data []byte, err error) {
	lower := strings.ToLower(arg)
	switch {
	case arg == "-":
		data, err = readImport(stdin)
		return "standard input", data, err
	case strings.Contains(lower, vmessScheme):
		return "the link", []byte(arg), nil
	case strings.HasPrefix(lower, "https://"), strings.HasPrefix(lower, "http://"):
		return "", nil, cli.Usagef("this is the address of a subscription, not a link\nfix: %s", fetchAndImport("'ADDRESS'"))
	case strings.Contains(lower, "://"):
		return "", nil, cli.Usagef("%s is not a vmess:// link\nfix: take a link of a server that speaks VMess", cli.Show(arg))
	}
	file, err := os.Open(arg)
	if err != nil {
		if _, noText := sharelink.Read([]byte(arg)); noText == nil {
			return "the link", []byte(arg), nil // one that lost its beginning
		}
		return "", nil, fmt.Errorf("read %s: %w", cli.Show(arg), withoutPath(err))
	}
	defer func() { _ = file.Close() }() // only read from
	data, err = readImport(file)
	return strconv.Quote(arg), data, err // a file's name, since it is there, and so no secret
}

// readImport reads a text, and one byte more than is allowed if it is longer.
func readImport(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, sharelink.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read what to import: %w", withoutPath(err))
	}
	return data, nil
}

// withoutPath keeps a link that was taken for a file out of the message.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// importServers returns the configuration for what a text holds, and tells
// people what is left out.
func importServers(name string, data []byte, stderr io.Writer) ([]byte, error) {
	found, err := sharelink.Read(data)
	if len(found.Skipped) > 1 || err == nil {
		for _, skipped := range found.Skipped {
			fmt.Fprintf(stderr, "skipped: %s\n", skipped)
		}
		if found.Omitted > 0 {
			fmt.Fprintf(stderr, "skipped: %d more\n", found.Omitted)
		}
	}
	if errors.Is(err, sharelink.ErrUnusable) && slices.ContainsFunc(found.Skipped, wrongField) {
		return nil, fmt.Errorf("%s: %w\nfix: correct the fields that are named above, or take links of other servers", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cfg := found.Config()
	for _, w := range found.Notes {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	out := config.MarshalClient(cfg)
	if len(out) > config.MaxSize {
		return nil, fmt.Errorf("%s: the configuration of its %d servers is larger than 1 MiB\nfix: import fewer at a time", name, len(found.Servers))
	}
	if len(found.Servers)+len(found.Skipped) > 1 {
		fmt.Fprintf(stderr, "imported: %s, skipped %d\n", counted(len(found.Servers)), len(found.Skipped)+found.Omitted)
	}
	return out, nil
}

// wrongField reports whether one field of it is why a server is skipped.
func wrongField(s sharelink.Skipped) bool {
	var field *sharelink.FieldError
	return errors.As(s.Err, &field)
}

func counted(servers int) string {
	if servers == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", servers)
}

func newLinkExportCommand() *cobra.Command {
	var (
		file, format string
		qr           bool
	)
	cmd := &cobra.Command{
		Use:   "export [-c FILE] [--format FORM] [--qr]",
		Short: "Print the share link of a configuration's server",
		Long: `Export prints the share link of a configuration's server, for a phone or another
computer; of several servers a link each. Whoever has the link can use the
server: it holds the id. What a link cannot carry is told.`,
		Example: `  vmess-local link export -c config.json
  vmess-local link export --format url
  vmess-local link export --qr`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			form, err := sharelink.ParseForm(format)
			if err != nil {
				return cli.Usagef("--format: saw %s; %w\nfix: write --format v2rayn, which all clients read, or --format url", cli.Show(format), err)
			}
			cfg, _, err := loadConfig(cmd, file)
			if err != nil {
				return unusable(err)
			}
			servers := cfg.Servers
			if len(servers) == 0 {
				servers = []config.Remote{cfg.Server}
			}
			for i := range servers {
				if err := exportServer(cmd, &servers[i], form, qr); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE`, or - for standard input")
	cmd.Flags().StringVar(&format, "format", "v2rayn", "link's `FORM`: v2rayn, which all clients read, or url")
	cli.Choices(cmd, "format", "v2rayn", "url")
	cmd.Flags().BoolVar(&qr, "qr", false, "also draw the link as a QR code")
	return cmd
}

// exportServer prints a server's link, and tells people what it lacks.
func exportServer(cmd *cobra.Command, r *config.Remote, form sharelink.Form, qr bool) error {
	link, err := sharelink.Format(r, form)
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	for _, key := range sharelink.Lost(r, form) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: the link cannot carry %q\n", key)
	}
	fmt.Fprintln(cmd.OutOrStdout(), link)
	if !qr {
		return nil
	}
	code, err := sharelink.QR(link, cli.Coloured(cmd.OutOrStdout()))
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), code)
	return err
}
