package main

import (
	"log"
	"os"
	"os/signal"
	"syscall"
)

// misbehaviour is what a test asks of the stand-in in STAND_IN_MISBEHAVE: one of the words below, or nothing.
func misbehaviour() string { return os.Getenv("STAND_IN_MISBEHAVE") }

const (
	// Ends with an error before it has spoken to the server.
	dieAtStart = "die-at-start"
	// Does nothing at all, until it is killed.
	hangAtStart = "hang-at-start"
	// Is gone the moment it has a task, as if killed: the server thinks that the task runs.
	dieAfterFetch = "die-after-fetch"
	// Does nothing with the task that it has.
	hangAfterFetch = "hang-after-fetch"
	// Runs on when the server says that the task is cancelled.
	ignoreCancel = "ignore-cancel"
)

func misbehaveAtStart() {
	switch misbehaviour() {
	case dieAtStart:
		log.Fatal("stand-in: dies at start, as asked")
	case hangAtStart:
		hang()
	}
}

func misbehaveAfterFetch() {
	switch misbehaviour() {
	case dieAfterFetch:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case hangAfterFetch:
		hang()
	}
}

func hang() {
	log.Print("stand-in: hangs, as asked")
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	for {
		_ = syscall.Pause()
	}
}
