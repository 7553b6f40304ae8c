package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"
)

// daemon fetches tasks and carries them out.
type daemon struct {
	config *config
	forge  server
	labels []label
	kind   kind
	// What the server last said of its tasks: it looks for one only if that is no longer so.
	tasksVersion atomic.Int64
}

func runDaemon(ctx context.Context, config *config, once bool, labelList string) error {
	misbehaveAtStart()
	me, err := readIdentity(config.Runner.File)
	if err != nil {
		return err
	}
	if err := claim(config.Runner.File); err != nil {
		return err
	}
	labels, err := parseLabels(chooseLabels(labelList, config, me))
	if err != nil {
		return err
	}
	if needsDocker(labels) {
		if err := findDocker(ctx, config); err != nil {
			return err
		}
	}

	d := &daemon{config: config, forge: connectTo(me.Address, me), labels: labels, kind: gitea}
	declared, err := d.forge.Declare(ctx, connect.NewRequest(&runnerv1.DeclareRequest{Version: version, Labels: names(labels)}))
	if err != nil {
		return fmt.Errorf("fail to invoke Declare: %w", err)
	}
	log.Printf("runner: %s, with version: %s, with labels: %v, declare successfully", me.Name, version, names(labels))
	once = once || me.Ephemeral || declared.Msg.GetRunner().GetEphemeral()
	return d.serve(ctx, once)
}

// chooseLabels: those of the command line or the environment, of the configuration, of the registration, in this order.
func chooseLabels(given string, config *config, me *identity) []string {
	if given == "" {
		given = os.Getenv("GITEA_RUNNER_LABELS")
	}
	if given != "" {
		return split(given)
	}
	if len(config.Runner.Labels) > 0 {
		return config.Runner.Labels
	}
	return me.Labels
}

// serve ends after one task if once is true, else at a signal; tasks that run then are given the time that is configured.
func (d *daemon) serve(ctx context.Context, once bool) error {
	polling, endPolling := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer endPolling()
	running, endRunning := context.WithCancel(ctx)
	defer endRunning()
	endedByItself := context.AfterFunc(polling, func() {
		log.Printf("runner: shutdown initiated, waiting %s for running jobs to complete before shutting down", d.config.Runner.ShutdownTimeout)
		time.AfterFunc(d.config.Runner.ShutdownTimeout, endRunning)
	})
	defer endedByItself()

	workers := d.config.Runner.Capacity
	if once {
		workers = 1
	}
	var all sync.WaitGroup
	var failure atomic.Pointer[error]
	for range workers {
		all.Go(func() {
			if err := d.work(polling, running, once); err != nil {
				failure.Store(&err)
				endPolling()
			}
		})
	}
	all.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *daemon) work(polling, running context.Context, once bool) error {
	for polling.Err() == nil {
		task, err := d.fetch(polling)
		if connect.CodeOf(err) == connect.CodeUnauthenticated {
			return fmt.Errorf("the server does not know this runner: %w", err)
		}
		if err != nil && polling.Err() == nil {
			log.Printf("failed to fetch task: %v", err)
		}
		if task != nil {
			misbehaveAfterFetch()
			d.run(running, task)
			if once {
				return nil
			}
		}
		select {
		case <-polling.Done():
		case <-time.After(d.config.Runner.FetchInterval):
		}
	}
	return nil
}

// fetch asks for a task; there may be none.
func (d *daemon) fetch(ctx context.Context) (*runnerv1.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.Runner.FetchTimeout)
	defer cancel()
	known := d.tasksVersion.Load()
	answer, err := d.forge.FetchTask(ctx, connect.NewRequest(&runnerv1.FetchTaskRequest{TasksVersion: known}))
	if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	task := answer.Msg.GetTask()
	if task != nil {
		// There may be more of them behind this one.
		d.tasksVersion.Store(0)
	} else {
		d.tasksVersion.CompareAndSwap(known, answer.Msg.GetTasksVersion())
	}
	return task, nil
}
