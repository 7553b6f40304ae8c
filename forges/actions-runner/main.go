// A stand-in for GitHub's runner (actions/runner), which needs .NET and a download that cannot be had here: its files, start script and
// just-in-time configuration, the docker command line in the order in which it uses it, and its manners at a signal. It speaks to our fake
// of GitHub, in messages that are named as those of the real service and are much smaller. It lacks actions but those of node in the job's own repository, expressions, logs that are
// sent while a job runs, and updates of itself: a job that asks for such a thing fails and says so.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"
)

// What the real listener's exit codes say to its start script.
const (
	ended      = 0
	terminated = 1
	conflict   = 5
)

func main() {
	log.SetFlags(0)
	log.Print("This is a stand-in for the GitHub Actions runner")
	if len(os.Args) < 2 || os.Args[1] != "run" {
		log.Print("usage: Runner.Listener run")
		os.Exit(terminated)
	}
	os.Exit(listen())
}

func listen() int {
	told, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer done()
	runner, err := configure()
	if err != nil {
		log.Print(err)
		return terminated
	}
	runner.misbehaveAtStart()
	hub, err := connect(told, runner)
	if err != nil {
		log.Print(err)
		if err == errConflict {
			return conflict
		}
		return terminated
	}
	defer hub.leave()
	log.Print("√ Connected to GitHub\n\nListening for Jobs")
	request, err := hub.waitForJob(told)
	if err != nil {
		log.Print(err)
		return ended
	}
	runner.misbehaveAfterFetch()
	return runner.serve(told, hub, request)
}
