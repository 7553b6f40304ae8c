package main

import (
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v4"
)

// config is what is read of the real runner's configuration file; keys that only the real one knows are passed over.
type config struct {
	Log struct {
		Level string `yaml:"level"`
	} `yaml:"log"`
	Runner struct {
		File            string            `yaml:"file"`
		Capacity        int               `yaml:"capacity"`
		Envs            map[string]string `yaml:"envs"`
		Timeout         time.Duration     `yaml:"timeout"`
		ShutdownTimeout time.Duration     `yaml:"shutdown_timeout"`
		FetchTimeout    time.Duration     `yaml:"fetch_timeout"`
		FetchInterval   time.Duration     `yaml:"fetch_interval"`
		Labels          []string          `yaml:"labels"`
		DefaultImage    string            `yaml:"default_image"`
	} `yaml:"runner"`
	Container struct {
		Network       string        `yaml:"network"`
		Privileged    bool          `yaml:"privileged"`
		Options       string        `yaml:"options"`
		WorkdirParent string        `yaml:"workdir_parent"`
		ValidVolumes  []string      `yaml:"valid_volumes"`
		DockerHost    string        `yaml:"docker_host"`
		ForcePull     bool          `yaml:"force_pull"`
		DockerTimeout time.Duration `yaml:"docker_timeout"`
	} `yaml:"container"`
	Host struct {
		WorkdirParent string `yaml:"workdir_parent"`
	} `yaml:"host"`
}

// readConfig reads a file, or takes the real runner's defaults for everything if none is named.
func readConfig(file string) (*config, error) {
	read := &config{}
	read.Runner.File = ".runner"
	read.Runner.Capacity = 1
	read.Runner.Timeout = 3 * time.Hour
	read.Runner.FetchTimeout = 5 * time.Second
	read.Runner.FetchInterval = 2 * time.Second
	read.Runner.DefaultImage = "docker.gitea.com/runner-images:ubuntu-latest"
	read.Container.WorkdirParent = "workspace"
	if file == "" {
		return read, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("open config file %q: %w", file, err)
	}
	if err := yaml.Unmarshal(text, read); err != nil {
		return nil, fmt.Errorf("parse config file %q: %w", file, err)
	}
	return read, nil
}
