package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// containers are those of one job, made by the docker command line in the real runner's order and with its flags.
type containers struct {
	network string
	ids     []string
	job     string
	inside  string
}

// makeContainers answers what it has made also when it fails.
func (r *runner) makeContainers(ctx context.Context, todo *job, output *collected) (*containers, error) {
	made := &containers{}
	docker := func(arguments ...string) (string, error) { return docker(ctx, output, arguments...) }
	if _, err := docker("version", "--format", "{{.Server.APIVersion}}"); err != nil {
		return made, err
	}
	label, err := r.instanceLabel()
	if err != nil {
		return made, err
	}
	stale, err := docker("ps", "--all", "--quiet", "--no-trunc", "--filter", "label="+label)
	if err != nil {
		return made, err
	}
	for _, id := range strings.Fields(stale) {
		if _, err := docker("rm", "--force", id); err != nil {
			return made, err
		}
	}
	if _, err := docker("network", "prune", "--force", "--filter", "label="+label); err != nil {
		return made, err
	}
	network := "github_network_" + random()
	if _, err := docker("network", "create", "--label", label, network); err != nil {
		return made, err
	}
	made.network = network
	for alias, service := range todo.Services {
		arguments := []string{"--name", random() + "_" + alias, "--label", label, "--network", network, "--network-alias", alias, service.Image}
		if _, err := made.start(docker, service.Image, arguments); err != nil {
			return made, err
		}
	}
	if todo.Container == nil {
		return made, nil
	}
	name := path.Base(todo.Repository)
	made.inside = path.Join("/__w", name, name)
	arguments, err := r.jobArguments(todo, label, network, made.inside)
	if err != nil {
		return made, err
	}
	made.job, err = made.start(docker, todo.Container.Image, arguments)
	return made, err
}

func (c *containers) start(docker func(...string) (string, error), image string, arguments []string) (string, error) {
	if _, err := docker("pull", image); err != nil {
		return "", err
	}
	id, err := docker(append([]string{"create"}, arguments...)...)
	if err != nil {
		return "", err
	}
	c.ids = append(c.ids, id)
	if _, err := docker("start", id); err != nil {
		return "", err
	}
	found, err := docker("ps", "--all", "--filter", "id="+id, "--filter", "status=running", "--no-trunc", "--format", "{{.ID}} {{.Status}}")
	if err == nil && !strings.HasPrefix(found, id) {
		err = fmt.Errorf("container %s does not run", id)
	}
	return id, err
}

// jobArguments: all sources of binds are paths of the runner's own container.
func (r *runner) jobArguments(todo *job, label, network, inside string) ([]string, error) {
	arguments := []string{
		"--name", random() + "_job", "--label", label, "--workdir", inside, "--network", network,
		"-e", "HOME=/github/home", "-e", "GITHUB_ACTIONS=true", "-e", "CI=true",
		"-v", "/var/run/docker.sock:/var/run/docker.sock",
		"-v", filepath.Join(r.root, "externals") + ":/__e:ro",
	}
	for _, bind := range [][2]string{
		{".", "/__w"}, {"_temp", "/__w/_temp"}, {"_actions", "/__w/_actions"}, {"_tool", "/__w/_tool"},
		{"_temp/_github_home", "/github/home"}, {"_temp/_github_workflow", "/github/workflow"},
	} {
		source, err := r.work(bind[0])
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, "-v", source+":"+bind[1])
	}
	for _, volume := range todo.Container.Volumes {
		arguments = append(arguments, "-v", volume)
	}
	return append(arguments, "--entrypoint", "tail", todo.Container.Image, "-f", "/dev/null"), nil
}

func (c *containers) workspacePath() string { return c.inside }

func (c *containers) command(script string, env []string) *exec.Cmd {
	return c.exec(env, "sh", "-e", "/__w/_temp/"+filepath.Base(script))
}

func (c *containers) node(_ *runner, version, file string, env []string) *exec.Cmd {
	return c.exec(env, path.Join("/__e", version, "bin/node"), path.Join(c.inside, file))
}

func (c *containers) exec(env []string, program ...string) *exec.Cmd {
	arguments := []string{"exec", "-i", "--workdir", c.inside}
	for _, variable := range env {
		name, _, _ := strings.Cut(variable, "=")
		arguments = append(arguments, "-e", name)
	}
	command := exec.Command("docker", append(append(arguments, c.job), program...)...)
	command.Env = append(os.Environ(), env...)
	return command
}

func (c *containers) remove(output *collected) {
	for _, id := range c.ids {
		_, _ = docker(context.Background(), output, "rm", "--force", id)
	}
	if c.network != "" {
		_, _ = docker(context.Background(), output, "network", "rm", c.network)
	}
}

func docker(ctx context.Context, output *collected, arguments ...string) (string, error) {
	output.line("##[command]/usr/bin/docker " + strings.Join(arguments, " "))
	command := exec.CommandContext(ctx, "docker", arguments...)
	var said, complaint strings.Builder
	command.Stdout, command.Stderr = &said, &complaint
	err := command.Run()
	output.line(strings.TrimSpace(said.String() + complaint.String()))
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", arguments[0], err, complaint.String())
	}
	return strings.TrimSpace(said.String()), nil
}

// instanceLabel is told apart by the runner's own file.
func (r *runner) instanceLabel() (string, error) {
	text, err := os.ReadFile(filepath.Join(r.root, ".runner"))
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:3]), err
}

func random() string {
	text := make([]byte, 16)
	_, _ = rand.Read(text)
	return hex.EncodeToString(text)
}
