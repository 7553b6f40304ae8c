package main

import (
	"log"
	"os"
	"os/signal"
	"syscall"
)

// What a test asks of the stand-in, by the configuration that our fake hands out: one of these words, or nothing.
const (
	// Ends with an error before it has spoken to the server.
	dieAtStart = "die-at-start"
	// Does nothing at all, until it is killed.
	hangAtStart = "hang-at-start"
	// Is gone the moment it has a job, as if killed: the server thinks that it runs.
	dieAfterFetch = "die-after-fetch"
	// Runs on when it is told that the job is cancelled.
	ignoreCancel = "ignore-cancel"
)

func (r *runner) misbehaveAtStart() {
	switch r.Misbehave {
	case dieAtStart:
		log.Print("stand-in: dies at start, as asked")
		os.Exit(terminated)
	case hangAtStart:
		log.Print("stand-in: hangs, as asked")
		signal.Ignore(os.Interrupt, syscall.SIGTERM)
		for {
			_ = syscall.Pause()
		}
	}
}

func (r *runner) misbehaveAfterFetch() {
	if r.Misbehave == dieAfterFetch {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

func (r *runner) ignoresCancel() bool { return r.Misbehave == ignoreCancel }
