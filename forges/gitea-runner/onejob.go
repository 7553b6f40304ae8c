package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// kind is what differs between the two families of the one engine.
type kind struct {
	upper, lower string
}

var (
	gitea   = kind{"GITEA", "gitea"}
	forgejo = kind{"FORGEJO", "forgejo"}
)

// errNoTask is how `one-job` ends that does not wait, when there is nothing for it.
var errNoTask = errors.New("no task received")

// answerLimit is more than any task takes.
const answerLimit = 64 << 20

// oneJob is the command line of Forgejo's `one-job`.
type oneJob struct {
	wait                        bool
	handle, url, uuid, tokenURL string
	labels                      []string
	interval                    time.Duration
}

// run waits for the task and carries it out; SIGTERM ends it, and the task with it, at once.
func (o *oneJob) run(ctx context.Context, config *config) error {
	misbehaveAtStart()
	path, isFile := strings.CutPrefix(o.tokenURL, "file:")
	if o.url == "" || o.uuid == "" || !isFile {
		return errors.New("one-job needs --url, --uuid and --token-url file:PATH")
	}
	token, err := os.ReadFile(os.ExpandEnv(path))
	if err != nil {
		return err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return err
	}
	forgejoDocker(config)
	if needsDocker(labels) {
		// It asks once.
		config.Container.DockerTimeout = 0
		if err := findDocker(ctx, config); err != nil {
			return err
		}
	}
	me := &identity{Address: o.url, UUID: o.uuid, Token: strings.TrimSpace(string(token))}
	d := &daemon{config: config, forge: connectTo(me.Address, me), labels: labels, kind: forgejo}
	declared, err := d.forge.Declare(ctx, connect.NewRequest(&runnerv1.DeclareRequest{Version: version, Labels: names(labels)}))
	if err != nil {
		return fmt.Errorf("fail to invoke Declare: %w", err)
	}
	log.Printf("runner: %s, with version: %s, with labels: %v, declared successfully", declared.Msg.GetRunner().GetName(), version, names(labels))

	ctx, end := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer end()
	task, err := o.fetch(ctx, d, me)
	if task == nil || err != nil {
		return err
	}
	misbehaveAfterFetch()
	if task.GetContext().GetFields()["forgejo_default_actions_url"].GetStringValue() == "" {
		return errors.New("the task names no default_actions_url")
	}
	d.run(ctx, task)
	return nil
}

// forgejoDocker reads `docker_host` as Forgejo's runner does: nothing is for jobs unless it says so.
func forgejoDocker(config *config) {
	switch config.Container.DockerHost {
	case "automount":
		config.Container.DockerHost = ""
	case "":
		config.Container.DockerHost = notMounted
	}
}

// fetch asks until there is a task, or once; no task and no error mean that it was stopped.
func (o *oneJob) fetch(ctx context.Context, d *daemon, me *identity) (*runnerv1.Task, error) {
	interval := d.config.Runner.FetchInterval
	if o.interval > 0 {
		interval = o.interval
	}
	for {
		task, err := o.fetchOnce(ctx, d, me)
		if task != nil || ctx.Err() != nil {
			return task, nil
		}
		if !o.wait {
			return nil, errors.Join(errNoTask, err)
		}
		if err != nil {
			// As the real one, which goes on for ever whatever the error.
			log.Printf("failed to fetch task: %v", err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(interval):
		}
	}
}

// fetchOnce is FetchSingleTask, of which Gitea's definition knows nothing: the request's first field is the version of the tasks, always
// 0 here, its second the handle; the answer's second field is the task.
func (o *oneJob) fetchOnce(ctx context.Context, d *daemon, me *identity) (*runnerv1.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.Runner.FetchTimeout)
	defer cancel()
	if o.handle == "" {
		answer, err := d.forge.FetchTask(ctx, connect.NewRequest(&runnerv1.FetchTaskRequest{}))
		if err != nil {
			return nil, err
		}
		return answer.Msg.GetTask(), nil
	}
	var message []byte
	message = protowire.AppendTag(message, 2, protowire.BytesType)
	message = protowire.AppendString(message, o.handle)
	address := strings.TrimRight(o.url, "/") + "/api/actions/runner.v1.RunnerService/FetchSingleTask"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/proto")
	request.Header.Set("Connect-Protocol-Version", "1")
	request.Header.Set("User-Agent", "forgejo-runner/"+version)
	request.Header.Set("x-runner-uuid", me.UUID)
	request.Header.Set("x-runner-token", me.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		refusal := struct{ Code, Message string }{}
		_ = json.Unmarshal(body, &refusal)
		return nil, fmt.Errorf("%s: %s: %s", response.Status, refusal.Code, refusal.Message)
	}
	return readSingleTask(body)
}

func readSingleTask(body []byte) (*runnerv1.Task, error) {
	for len(body) > 0 {
		number, kind, length := protowire.ConsumeTag(body)
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		body = body[length:]
		if number == 2 && kind == protowire.BytesType {
			text, length := protowire.ConsumeBytes(body)
			if length < 0 {
				return nil, protowire.ParseError(length)
			}
			task := &runnerv1.Task{}
			return task, proto.Unmarshal(text, task)
		}
		length = protowire.ConsumeFieldValue(number, kind, body)
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		body = body[length:]
	}
	return nil, nil
}
