// A stand-in for Gitea's runner, which no package registry serves: the command line, files and manners of `gitea-runner` 3,
// the server's protocol from Gitea's own definition of it, and the engine that the real one is made of. It lacks what
// does not show to a server or a Docker socket: the cache server, metrics, log files, services of other systems.
// Its `one-job` stands in for that of `forgejo-runner` 13, whose engine is a fork of the same and whose protocol is this one and a
// call more.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is what a server and a reader of a log are told: nobody shall take this for the real one.
const version = "stand-in"

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		if errors.Is(err, errNoTask) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file string
	root := &cobra.Command{
		Use:               "gitea-runner",
		Short:             "Stand-in for Gitea's runner",
		Version:           version + ", with Gitea's act v0.261.10",
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().StringVarP(&file, "config", "c", "", "configuration file")

	register := registration{}
	add := &cobra.Command{
		Use:   "register",
		Short: "Register with a server and write the runner's file",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := readConfig(file)
			if err != nil {
				return err
			}
			return register.run(command.Context(), config)
		},
	}
	flags := add.Flags()
	flags.BoolVar(&register.noInteractive, "no-interactive", false, "ask nothing")
	flags.StringVar(&register.instance, "instance", "", "the server's address")
	flags.StringVar(&register.token, "token", "", "registration token")
	flags.StringVar(&register.tokenFile, "token-file", "", "file with the registration token")
	flags.StringVar(&register.name, "name", "", "the runner's name; the host's if empty")
	flags.StringVar(&register.labels, "labels", "", "labels, with commas between")
	flags.BoolVar(&register.ephemeral, "ephemeral", false, "the registration is good for one job")

	once, labels := false, ""
	run := &cobra.Command{
		Use:   "daemon",
		Short: "Fetch tasks and carry them out",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := readConfig(file)
			if err != nil {
				return err
			}
			return runDaemon(command.Context(), config, once, labels)
		},
	}
	run.Flags().BoolVar(&once, "once", false, "end after one task")
	run.Flags().StringVar(&labels, "labels", "", "labels, with commas between, instead of those in the runner's file")

	one := oneJob{}
	single := &cobra.Command{
		Use:   "one-job",
		Short: "Fetch one task of a Forgejo and carry it out",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := readConfig(file)
			if err != nil {
				return err
			}
			return one.run(command.Context(), config)
		},
	}
	flags = single.Flags()
	flags.BoolVarP(&one.wait, "wait", "w", false, "wait until there is a task")
	flags.StringVar(&one.handle, "handle", "", "take the job with this handle and no other")
	flags.StringVar(&one.url, "url", "", "the server's address")
	flags.StringVar(&one.uuid, "uuid", "", "what the server knows the runner by")
	flags.StringVar(&one.tokenURL, "token-url", "", "where the runner's token is: file:PATH")
	flags.StringArrayVar(&one.labels, "label", nil, "a label; may be given more than once")
	flags.DurationVar(&one.interval, "fetch-interval", 0, "how often to ask for a task, instead of what the configuration says")

	root.AddCommand(add, run, single)
	return root
}
