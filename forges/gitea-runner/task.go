package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"github.com/docker/docker/api/types/container"
	"github.com/nektos/act/pkg/common"
	"github.com/nektos/act/pkg/model"
	"github.com/nektos/act/pkg/runner"
	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v4"
)

// run carries a task out and tells the server about it, whatever comes.
func (d *daemon) run(ctx context.Context, task *runnerv1.Task) {
	log.Printf("task %d repo is %v %v", task.GetId(), task.GetContext().GetFields()["repository"].GetStringValue(), names(d.labels))
	ctx, stop := context.WithTimeout(ctx, d.config.Runner.Timeout)
	defer stop()
	reports := newReport(d.forge, task, stop)
	job, err := d.carryOut(ctx, task, reports)
	reports.end(job, err)
	log.Printf("task %d has ended: %s", task.GetId(), reports.state.GetResult())
}

func (d *daemon) carryOut(ctx context.Context, task *runnerv1.Task, reports *report) (job *model.Job, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("panic: %v", broken)
		}
	}()
	workflow, id, err := readPayload(task)
	if err != nil {
		return nil, err
	}
	job = workflow.GetJob(id)
	reports.begin(len(job.Steps))
	engine, err := d.engine(task)
	if err != nil {
		return job, err
	}
	executor, err := runner.New(engine)
	if err != nil {
		return job, err
	}
	// Jobs that this one needs are in the workflow for their results only.
	plan := &model.Plan{Stages: []*model.Stage{{Runs: []*model.Run{{Workflow: workflow, JobID: id}}}}}
	ctx = common.WithLoggerHook(ctx, reports)
	ctx = runner.WithJobLoggerFactory(ctx, jobLog{verbose: d.config.Log.Level == "debug"})
	err = executor.NewPlanExecutor(plan)(ctx)
	if ctx.Err() != nil {
		// The engine forgets the error of a step when it was stopped, and calls the job a success.
		err = ctx.Err()
	}
	return job, err
}

// readPayload reads the workflow, which holds the one job, and adds what is known of those that it needs.
func readPayload(task *runnerv1.Task) (*model.Workflow, string, error) {
	workflow, err := model.ReadWorkflow(bytes.NewReader(task.GetWorkflowPayload()))
	if err != nil {
		return nil, "", err
	}
	ids := workflow.GetJobIDs()
	if len(ids) != 1 {
		return nil, "", fmt.Errorf("multiple jobs found: %v", ids)
	}
	needs := []string{}
	for id, need := range task.GetNeeds() {
		needs = append(needs, id)
		workflow.Jobs[id] = &model.Job{Outputs: need.GetOutputs(), Result: word(need.GetResult())}
	}
	var raw yaml.Node
	if err := raw.Encode(needs); err != nil {
		return nil, "", err
	}
	workflow.Jobs[ids[0]].RawNeeds = raw
	return workflow, ids[0], nil
}

// engine is how the act engine is told to behave; what is not configurable is as in the real runner.
func (d *daemon) engine(task *runnerv1.Task) (*runner.Config, error) {
	context := task.GetContext()
	preset := &model.GithubContext{}
	text, err := context.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(text, preset)
	}
	if err != nil {
		return nil, err
	}
	if token := task.GetSecrets()[d.kind.upper+"_TOKEN"]; token != "" {
		preset.Token = token
	}
	event, err := json.Marshal(preset.Event)
	if err != nil {
		return nil, err
	}
	field := func(name string) string { return context.GetFields()[name].GetStringValue() }
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return &runner.Config{
		Workdir:               path.Join("/", d.config.Container.WorkdirParent, preset.Repository),
		ActionCacheDir:        filepath.Join(home, ".cache", "act"),
		ForcePull:             d.config.Container.ForcePull,
		LogOutput:             true,
		Env:                   d.environment(field("server_url"), field(d.kind.lower+"_runtime_token")),
		Secrets:               task.GetSecrets(),
		Vars:                  task.GetVars(),
		GitHubInstance:        strings.TrimSuffix(field("server_url"), "/"),
		AutoRemove:            true,
		NoSkipCheckout:        true,
		PresetGitHubContext:   preset,
		EventJSON:             string(event),
		ContainerNamePrefix:   fmt.Sprintf("%s-ACTIONS-TASK-%d", d.kind.upper, task.GetId()),
		ContainerMaxLifetime:  d.config.Runner.Timeout + time.Minute,
		ContainerNetworkMode:  container.NetworkMode(d.config.Container.Network),
		ContainerOptions:      d.config.Container.Options,
		ContainerDaemonSocket: d.config.Container.DockerHost,
		Privileged:            d.config.Container.Privileged,
		DefaultActionInstance: field(d.kind.lower + "_default_actions_url"),
		PlatformPicker: func(runsOn []string) string {
			return platform(d.labels, runsOn, d.config.Runner.DefaultImage)
		},
		ValidVolumes: d.config.Container.ValidVolumes,
	}, nil
}

// environment is what steps find beside their own.
func (d *daemon) environment(address, token string) map[string]string {
	address = strings.TrimSuffix(address, "/")
	found := map[string]string{
		d.kind.upper + "_ACTIONS":                "true",
		d.kind.upper + "_ACTIONS_RUNNER_VERSION": version,
		"ACTIONS_RUNTIME_URL":                    address + "/api/actions_pipeline/",
		"ACTIONS_RUNTIME_TOKEN":                  token,
		"ACTIONS_RESULTS_URL":                    address,
	}
	for name, value := range d.config.Runner.Envs {
		found[name] = value
	}
	return found
}

// jobLog is where the engine writes what the server is told too: nowhere, as in the real runner, unless everything is wanted.
type jobLog struct {
	verbose bool
}

// WithJobLogger is the engine's name for it.
func (l jobLog) WithJobLogger() *logrus.Logger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	if l.verbose {
		logger.SetOutput(os.Stderr)
	}
	return logger
}
