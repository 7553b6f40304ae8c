package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// How often a lease is renewed: a third of what the server gives.
const leaseRenewal = 20 * time.Second

// How long lines are gathered after the last one. What is not sent when the process ends is lost, as with upstream's agent.
const quiet = time.Second

// exitError is a step that has run and failed: its own state tells that, not the workflow's error.
type exitError struct {
	uuid string
	code int64
}

func (e exitError) Error() string { return fmt.Sprintf("uuid=%s: exit code %d", e.uuid, e.code) }

// workflow is the payload, as far as the stand-in carries it out (pipeline/backend/types).
type workflow struct {
	Stages []struct {
		Steps []step `json:"steps"`
	} `json:"pipeline"`
	Network string `json:"network"`
	Volume  string `json:"volume"`
}

type step struct {
	Name        string            `json:"name"`
	UUID        string            `json:"uuid"`
	Image       string            `json:"image"`
	Privileged  bool              `json:"privileged"`
	WorkingDir  string            `json:"working_dir"`
	Environment map[string]string `json:"environment"`
	Commands    []string          `json:"commands"`
	Volumes     []string          `json:"volumes"`
	OnSuccess   bool              `json:"on_success"`
	Auth        login             `json:"auth_config"`
}

// running is a workflow that was begun.
type running struct {
	*server
	id     string
	engine *engine
	todo   workflow
	made   []string
	volume string
	lines  chan message
}

// serve does a workflow and tells how it ended.
func serve(told context.Context, s *server, id string, payload []byte) error {
	w := &running{server: s, id: id, engine: dial(os.Getenv("DOCKER_HOST")), lines: make(chan message, 100)}
	if err := json.Unmarshal(payload, &w.todo); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(told)
	defer cancel()
	go w.waitForCancel(ctx, cancel)
	go w.extend(ctx)
	go w.sendLines(told)
	started := time.Now().Unix()
	if _, err := w.tell(ctx, "Init", workflowState(started, 0, "", false)); err != nil {
		return err
	}
	err := w.run(ctx)
	w.remove()
	said, isCanceled := "", ctx.Err() != nil
	if !errors.As(err, &exitError{}) && err != nil && !isCanceled {
		said = err.Error()
	}
	// Whoever was told to end has 5 s for it.
	last, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	_, err = w.tell(last, "Done", workflowState(started, time.Now().Unix(), said, isCanceled))
	log.Printf("workflow %s has ended: %s", id, said)
	return err
}

func workflowState(started, finished int64, said string, canceled bool) message {
	state := message{}
	state.putNumber(1, started)
	state.putNumber(2, finished)
	state.putText(3, said)
	state.putTruth(4, canceled)
	return state
}

// tell is a call about the workflow.
func (w *running) tell(ctx context.Context, method string, state message) (parsed, error) {
	ask := message{}
	ask.putText(1, w.id)
	if state != nil {
		ask.putBytes(2, state)
	}
	return w.call(ctx, method, ask)
}

func (w *running) waitForCancel(ctx context.Context, cancel func()) {
	answer, err := w.tell(ctx, "Wait", nil)
	if err == nil && answer.number(1) == 1 {
		log.Print("server side cancel signal received")
		cancel()
	}
}

func (w *running) extend(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, leaseRenewal)
		_, _ = w.tell(ctx, "Extend", nil)
	}
}

// run makes network and volume, and then the steps of each stage side by side.
func (w *running) run(ctx context.Context) error {
	if err := w.engine.call(ctx, http.MethodPost, "volumes/create", map[string]any{"Name": w.todo.Volume}, nil); err != nil {
		return err
	}
	w.volume = w.todo.Volume
	if err := w.engine.call(ctx, http.MethodPost, "networks/create", map[string]any{"Name": w.todo.Network}, nil); err != nil {
		return err
	}
	var failed error
	for _, stage := range w.todo.Stages {
		var all sync.WaitGroup
		results := make([]error, len(stage.Steps))
		for number, step := range stage.Steps {
			if failed != nil || !step.OnSuccess {
				w.update(ctx, step, message{}, func(state *message) { state.putTruth(8, true) })
				continue
			}
			id, err := w.start(ctx, step)
			if err != nil {
				results[number] = err
				w.update(ctx, step, message{}, func(state *message) {
					state.putTruth(4, true)
					state.putText(6, err.Error())
				})
				continue
			}
			all.Add(1)
			go func() {
				defer all.Done()
				results[number] = w.follow(ctx, step, id)
			}()
		}
		all.Wait()
		for _, err := range results {
			if err != nil && failed == nil {
				failed = err
			}
		}
	}
	return failed
}

func (w *running) start(ctx context.Context, step step) (string, error) {
	w.update(ctx, step, message{}, func(*message) {})
	if err := w.engine.pull(ctx, step.Image, step.Auth); err != nil {
		return "", err
	}
	env := []string{"CI_SCRIPT=" + base64.StdEncoding.EncodeToString([]byte(strings.Join(step.Commands, "\n")))}
	for name, value := range step.Environment {
		env = append(env, name+"="+value)
	}
	binds := step.Volumes
	if extra := os.Getenv("WOODPECKER_BACKEND_DOCKER_VOLUMES"); extra != "" {
		binds = append(binds, strings.Split(extra, ",")...)
	}
	id, err := w.engine.create(ctx, "wp_"+step.UUID, map[string]any{
		"Image": tagged(step.Image), "Env": env, "WorkingDir": step.WorkingDir,
		"Entrypoint": []string{"/bin/sh", "-c", "echo $CI_SCRIPT | base64 -d | /bin/sh -e"},
		"HostConfig": map[string]any{"Privileged": step.Privileged, "Binds": binds, "NetworkMode": w.todo.Network},
	})
	if err != nil {
		return "", err
	}
	w.made = append(w.made, id)
	return id, w.engine.call(ctx, http.MethodPost, "containers/"+id+"/start", nil, nil)
}

func (w *running) follow(ctx context.Context, step step, id string) error {
	var said bytes.Buffer
	_ = w.engine.follow(ctx, id, &said)
	w.queueLines(step, strings.TrimRight(said.String(), "\n"))
	var ended struct{ StatusCode int64 }
	if err := w.engine.call(ctx, http.MethodPost, "containers/"+id+"/wait", nil, &ended); err != nil {
		return err
	}
	w.update(ctx, step, message{}, func(state *message) {
		state.putNumber(3, time.Now().Unix())
		state.putTruth(4, true)
		state.putNumber(5, ended.StatusCode)
	})
	if ended.StatusCode != 0 {
		return exitError{step.UUID, ended.StatusCode}
	}
	return nil
}

// update tells how a step stands.
func (w *running) update(ctx context.Context, step step, state message, more func(*message)) {
	state.putText(1, step.UUID)
	state.putNumber(2, time.Now().Unix())
	more(&state)
	_, _ = w.tell(ctx, "Update", state)
}

func (w *running) queueLines(step step, text string) {
	for number, line := range strings.Split(text, "\n") {
		entry := message{}
		entry.putText(1, step.UUID)
		entry.putNumber(3, int64(number))
		entry.putText(5, line)
		w.lines <- entry
	}
}

// sendLines sends what was queued after each quiet time, until the agent is told to end.
func (w *running) sendLines(told context.Context) {
	ask := message{}
	for {
		select {
		case <-told.Done():
			return
		case entry := <-w.lines:
			ask.putBytes(1, entry)
		case <-time.After(quiet):
			if len(ask) > 0 {
				_, _ = w.call(told, "Log", ask)
				ask = message{}
			}
		}
	}
}

func (w *running) remove() {
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()
	for _, id := range w.made {
		_ = w.engine.call(ctx, http.MethodDelete, "containers/"+id+"?force=1&v=1", nil, nil)
	}
	_ = w.engine.call(ctx, http.MethodDelete, "volumes/"+w.volume, nil, nil)
	_ = w.engine.call(ctx, http.MethodDelete, "networks/"+w.todo.Network, nil, nil)
}
