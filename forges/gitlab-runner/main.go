// A stand-in for GitLab's runner (gitlab-runner), whose modules cannot all be had where it is tested: `run-single` with a configuration
// file and the docker executor, as commands/single.go and executors/docker have it. It speaks GitLab's own protocol and Docker's API, and
// runs a job's script for real. It lacks what needs the helper image: git, caches and artifacts; a job that asks for artifacts fails
// and says so.
package main

import (
	"flag"
	"log"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	checkInterval  = 3 * time.Second
	unhealthyPause = 300 * time.Second
)

// told is what signals have said.
type told struct {
	finished atomic.Bool
	abort    chan struct{}
}

func main() {
	log.SetFlags(0)
	log.Print("This is a stand-in for gitlab-runner")
	if len(os.Args) < 2 || os.Args[1] != "run-single" {
		log.Fatal("usage: gitlab-runner run-single --config FILE --runner NAME --max-builds N --wait-timeout SECONDS")
	}
	flags := flag.NewFlagSet("run-single", flag.ExitOnError)
	config := flags.String("config", "/etc/gitlab-runner/config.toml", "")
	name := flags.String("runner", "", "")
	builds := flags.Int("max-builds", 0, "")
	wait := flags.Int("wait-timeout", 0, "")
	_ = flags.Parse(os.Args[2:])
	me, err := load(*config, *name)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("Starting runner for %s ...", me.URL)
	signals := listen()
	last, forever := time.Now(), *builds == 0
	for !signals.finished.Load() {
		found, healthy := me.requestJob()
		switch {
		case !healthy:
			log.Print("Runner is not healthy!")
			signals.pause(unhealthyPause)
		case found == nil:
			signals.pause(checkInterval)
		default:
			me.serve(found, signals)
			*builds--
			last = time.Now()
		}
		if !forever && *builds < 1 {
			log.Print("This runner has processed its build limit, so now exiting")
			return
		}
		if *wait > 0 && time.Since(last) > time.Duration(*wait)*time.Second {
			log.Printf("This runner has not received a job in %d seconds, so now exiting", *wait)
			return
		}
	}
}

// listen: a QUIT waits for the job, anything else aborts it, and a second one ends at once.
func listen() *told {
	t := &told{abort: make(chan struct{})}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		got := <-signals
		t.finished.Store(true)
		for got == syscall.SIGQUIT {
			log.Print("Requested quit, waiting for builds to finish")
			got = <-signals
		}
		log.Print("Requested exit: ", got)
		close(t.abort)
		select {
		case second := <-signals:
			log.Fatal("forced exit: ", second)
		case <-time.After(30 * time.Second):
			log.Fatal("shutdown timed out")
		}
	}()
	return t
}

// pause is not cut short by a QUIT, as the real one's is not.
func (t *told) pause(limit time.Duration) {
	select {
	case <-t.abort:
	case <-time.After(limit):
	}
}
