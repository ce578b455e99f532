package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// NewRoot returns a program's outermost command, which does nothing but lead
// to the others; help, version and completion are among them.
func NewRoot(name, short, long, example string, commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use: name, Short: short, Long: long, Example: example,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usagef("%s\nfix: %s --help lists what there is", flagText(err), cmd.CommandPath())
	})
	root.SetUsageFunc(usage)
	root.Flags().Bool("version", false, "print the version")
	root.SetHelpCommand(newHelpCommand(name))
	root.AddCommand(commands...)
	root.AddCommand(newVersionCommand(name), newCompletionCommand(name), newManCommand(name))
	finish(root)
	lead := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if asked, _ := cmd.Flags().GetBool("version"); asked {
			return printVersion(cmd, name)
		}
		return lead(cmd, args)
	}
	return root
}

// finish sets what is the same for all commands: no "[flags]" in usage lines,
// which say themselves what flags matter, and a word for those that only lead
// to others and are given one they do not know.
func finish(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		finish(c)
	}
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs // RunE words the mistake
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	root := cmd.Root()
	fix := cmd.CommandPath() + " --help lists what there is"
	if strings.HasPrefix(strings.ToLower(word), "vmess://") {
		if run, _, err := root.Find([]string{"run"}); err == nil && strings.Contains(run.Use, "LINK") {
			fix = root.Name() + " run '" + word[:len("vmess://")] + "…'"
		}
	} else if near := cmd.SuggestionsFor(word); len(near) > 0 {
		fix = "did you mean " + cmd.CommandPath() + " " + near[0] + "?"
	}
	return Usagef("unknown command %s\nfix: %s", Show(word), fix)
}

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error { return maximum(0, cmd, args) }

// OneArg accepts one argument or none.
func OneArg(cmd *cobra.Command, args []string) error { return maximum(1, cmd, args) }

func maximum(n int, cmd *cobra.Command, args []string) error {
	if len(args) <= n {
		return nil
	}
	return Usagef("%s: unexpected argument %s\nfix: %s", cmd.CommandPath(), Show(args[n]), cmd.UseLine())
}

func newHelpCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about any command",
		Example: "  " + name + " help run",
		Args:    cobra.ArbitraryArgs, // a command may be several words

		DisableFlagsInUseLine: true,
		RunE: func(help *cobra.Command, args []string) error {
			if len(args) == 0 {
				return help.Root().Help()
			}
			cmd, rest, err := help.Root().Find(args)
			if err != nil || cmd == help.Root() {
				return unknownCommand(help.Root(), args[0])
			}
			if len(rest) > 0 && cmd.HasSubCommands() {
				return unknownCommand(cmd, rest[0])
			}
			if err := maximum(0, help, rest); err != nil {
				return err
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

func printVersion(cmd *cobra.Command, name string) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), Version(name))
	return err
}

func newVersionCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  " + name + " version",
		Args:    NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return printVersion(cmd, name) },
	}
}

func newCompletionCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands and flags in your shell",
		Example: "  source <(" + name + " completion bash)\n" +
			"  " + name + " completion zsh > \"${fpath[1]}/_" + name + "\"\n" +
			"  " + name + " completion fish > ~/.config/fish/completions/" + name + ".fish\n" +
			"  " + name + " completion powershell | Out-String | Invoke-Expression",
		Args:      OneArg,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return Usagef("no shell given\nfix: %s", cmd.UseLine())
			}
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(w)
			}
			return Usagef("no completion for the shell %s\nfix: %s", Show(args[0]), cmd.UseLine())
		},
	}
}

// Choices has shells complete the value of a command's flag.
func Choices(cmd *cobra.Command, flag string, values ...string) {
	// The only error is that of a flag that is not there, or has them already.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// formatFlag is the flag that chooses the log's format.
const formatFlag = "log-format"

// logsJSON reports whether a command's log is for programs.
func logsJSON(cmd *cobra.Command) bool {
	if cmd == nil {
		return false
	}
	flag := cmd.Flags().Lookup(formatFlag)
	return flag != nil && flag.Value.String() == "json"
}
