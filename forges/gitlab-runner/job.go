package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// How often the log is sent: the real runner's 3 s would make tests wait.
const flushInterval = 500 * time.Millisecond

var errScript = errors.New("exit status")

// build is a job that runs.
type build struct {
	*runner
	job    *job
	engine *engine
	lock   sync.Mutex
	report *report
	made   []string
	net    string
}

// serve does a job and tells how it ended.
func (r *runner) serve(todo *job, signals *told) {
	log.Printf("Checking for jobs... received job=%d", todo.ID)
	b := &build{runner: r, job: todo, engine: dial(r.Docker.Host), report: &report{runner: r, job: todo}}
	if status, _, _ := b.report.update(map[string]any{"state": "running"}); status == http.StatusForbidden || status == http.StatusNotFound {
		return
	}
	if b.variable("STAND_IN_MISBEHAVE") == "die-after-fetch" {
		// It is the first process of its container, whom no signal of its own kills.
		os.Exit(137)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		select {
		case <-signals.abort:
			stop()
		case <-ctx.Done():
		}
	}()
	done := make(chan error, 1)
	go func() { done <- b.run(ctx) }()
	err := b.watch(done, stop)
	b.remove()
	state, reason := "success", ""
	switch {
	case b.report.state == "canceling" || b.report.state == "canceled":
		state, reason = "failed", "job_canceled"
		b.say("ERROR: Job failed: canceled")
	case ctx.Err() != nil:
		state, reason = "failed", "runner_system_failure"
		b.say("ERROR: Job failed (system failure): aborted: terminated")
	case errors.Is(err, errScript):
		state, reason = "failed", "script_failure"
		b.say("ERROR: Job failed: " + err.Error())
	case err != nil:
		state, reason = "failed", "runner_system_failure"
		b.say("ERROR: Job failed (system failure): " + err.Error())
	default:
		b.say("Job succeeded")
	}
	b.report.finish(state, reason)
	log.Printf("Job %d has ended: %s %s", todo.ID, state, reason)
}

// watch sends the log until the job has ended, and stops it when the server says so.
func (b *build) watch(done chan error, stop func()) error {
	asked := time.Now()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(flushInterval):
		}
		b.lock.Lock()
		before := b.report.sent
		goesOn := b.report.flush()
		if goesOn && b.report.sent == before && time.Since(asked) > time.Second {
			goesOn, asked = b.report.keepAlive(), time.Now()
		}
		b.lock.Unlock()
		if !goesOn {
			stop()
			return <-done
		}
	}
}

// Write takes what the job says.
func (b *build) Write(piece []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.report.text.Write(piece)
}

func (b *build) say(line string) { fmt.Fprintln(b, line) }

func (b *build) variable(name string) string {
	for _, variable := range b.job.Variables {
		if variable.Key == name {
			return variable.Value
		}
	}
	return ""
}

// run makes network, services and the container of the job, as the real executor does with FF_NETWORK_PER_BUILD.
func (b *build) run(ctx context.Context) error {
	if len(b.job.Artifacts) > 0 {
		return errors.New("stand-in: artifacts cannot be kept")
	}
	b.say("Running with a stand-in for gitlab-runner")
	name := fmt.Sprintf("runner-%s-project-job-%d", b.systemID, b.job.ID)
	var network struct{ ID string }
	if err := b.engine.call(ctx, http.MethodPost, "networks/create", map[string]any{"Name": name}, &network); err != nil {
		return err
	}
	b.net = network.ID
	for number, service := range b.job.Services {
		aliases := []string{service.Alias}
		body := map[string]any{"Image": tagged(service.Name), "HostConfig": b.host(b.isPrivileged(service.Name), nil)}
		if err := b.start(ctx, fmt.Sprintf("%s-svc-%d", name, number), service.Name, body, aliases); err != nil {
			return err
		}
	}
	chosen := b.job.Image.Name
	if chosen == "" {
		chosen = b.Docker.Image
	}
	b.say("Using Docker executor with image " + chosen + " ...")
	body := map[string]any{
		"Image": tagged(chosen), "Cmd": []string{"sh", "-e", "-c", b.script()}, "Env": b.env(), "HostConfig": b.host(b.Docker.Privileged, b.Docker.Volumes),
	}
	if err := b.start(ctx, name+"-build", chosen, body, []string{"build"}); err != nil {
		return err
	}
	id := b.made[len(b.made)-1]
	if err := b.engine.follow(ctx, id, b); err != nil {
		return err
	}
	var ended struct{ StatusCode int }
	if err := b.engine.call(ctx, http.MethodPost, "containers/"+id+"/wait", nil, &ended); err != nil {
		return err
	}
	if ended.StatusCode != 0 {
		return fmt.Errorf("%w %d", errScript, ended.StatusCode)
	}
	return nil
}

func (b *build) start(ctx context.Context, name, image string, body map[string]any, aliases []string) error {
	if err := b.engine.pull(ctx, image, login{}); err != nil {
		return err
	}
	body["NetworkingConfig"] = map[string]any{"EndpointsConfig": map[string]any{b.net: map[string]any{"Aliases": aliases}}}
	id, err := b.engine.create(ctx, name, body)
	if err != nil {
		return err
	}
	b.made = append(b.made, id)
	return b.engine.call(ctx, http.MethodPost, "containers/"+id+"/start", nil, nil)
}

func (b *build) host(privileged bool, volumes []string) map[string]any {
	var binds []string
	for _, volume := range volumes {
		if strings.Contains(volume, ":") {
			binds = append(binds, volume)
		}
	}
	return map[string]any{"Privileged": privileged, "Binds": binds, "NetworkMode": b.net}
}

// isPrivileged as createHostConfigForService has it; of the patterns the stand-in knows a name with stars.
func (b *build) isPrivileged(service string) bool {
	privileged := b.Docker.Privileged
	if b.Docker.ServicesPrivileged != nil {
		privileged = *b.Docker.ServicesPrivileged
	}
	if len(b.Docker.AllowedPrivilegedServices) == 0 {
		return privileged
	}
	for _, pattern := range b.Docker.AllowedPrivilegedServices {
		folder, last := path.Split(pattern)
		itsFolder, itsLast := path.Split(service)
		matches, _ := path.Match(last, itsLast)
		if matches && (folder == itsFolder || folder == "**/") {
			return privileged
		}
	}
	return false
}

func (b *build) script() string {
	var lines []string
	for _, step := range b.job.Steps {
		if step.Name != "after_script" {
			lines = append(lines, step.Script...)
		}
	}
	return strings.Join(lines, "\n")
}

func (b *build) env() []string {
	var env []string
	for _, variable := range b.job.Variables {
		env = append(env, variable.Key+"="+variable.Value)
	}
	return env
}

func (b *build) remove() {
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()
	for _, id := range b.made {
		_ = b.engine.call(ctx, http.MethodDelete, "containers/"+id+"?force=1&v=1", nil, nil)
	}
	if b.net != "" {
		_ = b.engine.call(ctx, http.MethodDelete, "networks/"+b.net, nil, nil)
	}
}
