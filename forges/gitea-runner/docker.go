package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nektos/act/pkg/container"
)

const notMounted = "-"

// findDocker settles which daemon the engine uses (DOCKER_HOST) and which socket jobs get (docker_host: `-` for none), and
// sees that it answers.
func findDocker(ctx context.Context, config *config) error {
	wanted := config.Container.DockerHost
	host := os.Getenv("DOCKER_HOST")
	if host == "" && wanted != "" && wanted != notMounted {
		host = wanted
	}
	if host == "" {
		host = usualSocket()
	}
	if host == "" {
		return fmt.Errorf("daemon Docker Engine socket not found and docker_host config was invalid")
	}
	if err := os.Setenv("DOCKER_HOST", host); err != nil {
		return err
	}
	if wanted == "" {
		config.Container.DockerHost = host
	}
	if strings.HasPrefix(config.Container.DockerHost, "tcp://") {
		config.Container.DockerHost = notMounted
	}
	return waitForDocker(ctx, config.Container.DockerTimeout)
}

func usualSocket() string {
	for _, place := range container.CommonSocketLocations {
		if path := os.ExpandEnv(place); strings.HasPrefix(path, "/") {
			if _, err := os.Stat(path); err == nil {
				return "unix://" + path
			}
		}
	}
	return ""
}

// waitForDocker asks once, or until the time that is configured has passed.
func waitForDocker(ctx context.Context, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := ping(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot ping the docker daemon, is it running? %w", err)
		}
		time.Sleep(time.Second)
	}
}

func ping(ctx context.Context) error {
	client, err := container.GetDockerClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Ping(ctx)
	return err
}
