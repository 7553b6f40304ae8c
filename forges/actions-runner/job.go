package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long a step may take to end when it is asked to: the real runner gives 7.5 s and another 2.5 s.
const patience = 3 * time.Second

// job is what there is to do: of the real message that which our fake says.
type job struct {
	ID         string               `json:"jobId"`
	Name       string               `json:"jobDisplayName"`
	Repository string               `json:"repository"`
	Steps      []step               `json:"steps"`
	Container  *container           `json:"container"`
	Services   map[string]container `json:"services"`
	Env        map[string]string    `json:"env"`
	Key        string               `json:"job"`
	Workflow   string               `json:"workflow_ref"`
	Commit     string               `json:"workflow_sha"`
}

type step struct {
	Run  string            `json:"run"`
	Uses string            `json:"uses"`
	With map[string]string `json:"with"`
}

type container struct {
	Image   string   `json:"image"`
	Volumes []string `json:"volumes"`
}

// serve does the one job, and tells how it ended.
func (r *runner) serve(told context.Context, h *hub, request *jobRequest) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	todo := job{}
	if code, err := h.call(ctx, http.MethodPost, request.RunServiceURL+"/acquirejob", map[string]string{"jobMessageId": request.ID}, &todo); err != nil {
		log.Printf("skipping message Job: %d: %v", code, err)
		return ended
	}
	log.Printf("%s: Running job: %s", time.Now().UTC().Format(time.RFC3339), todo.Name)

	running, stop := context.WithCancel(ctx)
	defer stop()
	if !r.ignoresCancel() {
		context.AfterFunc(told, stop)
		go h.watchForCancel(running, stop)
	}
	go h.renew(running, request)

	output := &collected{}
	result := "succeeded"
	if err := r.do(running, &todo, output); err != nil {
		result = "failed"
		output.line(err.Error())
	}
	if running.Err() != nil {
		result = "canceled"
		output.line("The operation was canceled.")
	}
	log.Printf("%s: Job %s completed with result: %s", time.Now().UTC().Format(time.RFC3339), todo.Name, result)
	body := map[string]any{"jobId": todo.ID, "conclusion": result, "log": output.text.String()}
	deadline := time.Now().Add(10 * time.Minute)
	for {
		code, err := h.call(ctx, http.MethodPost, request.RunServiceURL+"/completejob", body, nil)
		if err == nil || (code >= 400 && code < 500) || time.Now().After(deadline) {
			return ended
		}
		log.Printf("failed to report: %v", err)
		time.Sleep(time.Second)
	}
}

func (h *hub) watchForCancel(ctx context.Context, stop func()) {
	for ctx.Err() == nil {
		found, err := h.next(ctx, "Busy")
		if err != nil {
			pause(ctx, time.Second)
		} else if found != nil && found.Type == "JobCancellation" {
			stop()
		}
	}
}

func (h *hub) renew(ctx context.Context, request *jobRequest) {
	for ctx.Err() == nil {
		_, _ = h.call(ctx, http.MethodPost, request.RunServiceURL+"/renewjob", map[string]string{"jobId": request.ID}, nil)
		pause(ctx, time.Second)
	}
}

// do runs the steps, one after the other, beside the runner or in the job's container.
func (r *runner) do(ctx context.Context, todo *job, output *collected) error {
	name := path.Base(todo.Repository)
	workspace, err := r.work(name, name)
	if err != nil {
		return err
	}
	scripts, err := r.work("_temp")
	if err != nil {
		return err
	}
	where := place(beside{workspace: workspace})
	if err := r.callHook(ctx, todo, workspace, output); err != nil {
		return err
	}
	if todo.Container != nil || len(todo.Services) > 0 {
		inside, err := r.makeContainers(ctx, todo, output)
		defer inside.remove(output)
		if err != nil {
			return err
		}
		if todo.Container != nil {
			where = inside
		}
	}
	for number, step := range todo.Steps {
		if step.Uses != "" {
			if err := r.act(ctx, todo, step, workspace, where, output); err != nil {
				return err
			}
			continue
		}
		if step.Run == "" {
			return errors.New("stand-in: a step has neither run nor uses")
		}
		script := filepath.Join(scripts, fmt.Sprintf("step-%d.sh", number))
		if err := os.WriteFile(script, []byte(step.Run), 0o755); err != nil {
			return err
		}
		if err := run(ctx, where.command(script, r.env(todo, where.workspacePath())), output); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) env(todo *job, workspace string) []string {
	all := []string{
		"CI=true", "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=" + todo.Repository, "GITHUB_SERVER_URL=" + r.GitHubURL,
		"GITHUB_WORKSPACE=" + workspace, "GITHUB_JOB=" + todo.Key, "GITHUB_WORKFLOW_REF=" + todo.Workflow,
		"GITHUB_WORKFLOW_SHA=" + todo.Commit, "GITHUB_SHA=" + todo.Commit,
		"RUNNER_NAME=" + r.AgentName, "RUNNER_OS=Linux",
	}
	for name, value := range todo.Env {
		all = append(all, name+"="+value)
	}
	return all
}

// callHook does what the operator of a runner has told it to do before each job, first of all and beside the runner: as the real one, with
// the job's variables of GitHub but none of its workflow, and its failure is the job's.
func (r *runner) callHook(ctx context.Context, todo *job, workspace string, output *collected) error {
	hook := os.Getenv("ACTIONS_RUNNER_HOOK_JOB_STARTED")
	if hook == "" {
		return nil
	}
	output.line("A job started hook has been configured by the self-hosted runner administrator")
	if _, err := os.Stat(hook); err != nil {
		return errors.New("File doesn't exist")
	}
	plain := *todo
	plain.Env = nil
	return run(ctx, beside{workspace: workspace}.command(hook, r.env(&plain, workspace)), output)
}

// place is where steps run.
type place interface {
	command(script string, env []string) *exec.Cmd
	// node runs a file of the workspace by the node that comes with the runner.
	node(r *runner, version, file string, env []string) *exec.Cmd
	workspacePath() string
}

type beside struct{ workspace string }

func (b beside) workspacePath() string { return b.workspace }

func (b beside) command(script string, env []string) *exec.Cmd {
	command := exec.Command("sh", "-e", script)
	command.Dir = b.workspace
	command.Env = append(os.Environ(), env...)
	return command
}

func (b beside) node(r *runner, version, file string, env []string) *exec.Cmd {
	command := exec.Command(filepath.Join(r.root, "externals", version, "bin", "node"), filepath.Join(b.workspace, file))
	command.Dir = b.workspace
	command.Env = append(os.Environ(), env...)
	return command
}

// act does a node action of the repository's own, whose action.yml is written as JSON.
func (r *runner) act(ctx context.Context, todo *job, step step, workspace string, where place, output *collected) error {
	folder, isOwn := strings.CutPrefix(step.Uses, "./")
	if !isOwn {
		return fmt.Errorf("stand-in: %s: only actions of the repository itself can be carried out", step.Uses)
	}
	text, err := os.ReadFile(filepath.Join(workspace, folder, "action.yml"))
	if err != nil {
		return err
	}
	var action struct {
		Runs struct {
			Using string `json:"using"`
			Main  string `json:"main"`
		} `json:"runs"`
	}
	if err := json.Unmarshal(text, &action); err != nil {
		return fmt.Errorf("stand-in: %s/action.yml is not JSON: %w", folder, err)
	}
	if !strings.HasPrefix(action.Runs.Using, "node") {
		return fmt.Errorf("stand-in: %s: %s actions cannot be carried out", step.Uses, action.Runs.Using)
	}
	env := r.env(todo, where.workspacePath())
	for name, value := range step.With {
		env = append(env, "INPUT_"+strings.ToUpper(strings.ReplaceAll(name, " ", "_"))+"="+value)
	}
	return run(ctx, where.node(r, action.Runs.Using, filepath.Join(folder, action.Runs.Main), env), output)
}

// run ends the whole group of a command when the job is cancelled.
func run(ctx context.Context, command *exec.Cmd, output *collected) error {
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		select {
		case <-gone:
			return
		case <-ctx.Done():
		}
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			_ = syscall.Kill(-command.Process.Pid, signal)
			select {
			case <-gone:
				return
			case <-time.After(patience):
			}
		}
	}()
	err := command.Wait()
	close(gone)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command.Args[:1], " "), err)
	}
	return nil
}

// collected is what a job says, also shown in the runner's own log.
type collected struct {
	lock sync.Mutex
	text strings.Builder
}

func (c *collected) Write(piece []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.text.Write(piece)
	return os.Stdout.Write(piece)
}

func (c *collected) line(text string) { _, _ = c.Write([]byte(text + "\n")) }
