package main

import (
	"context"
	"errors"
	"log"
	"os"
	"strings"
	"time"

	pingv1 "code.gitea.io/actions-proto-go/ping/v1"
	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"
)

// registration is what `register` is told.
type registration struct {
	noInteractive                            bool
	instance, token, tokenFile, name, labels string
	ephemeral                                bool
}

func (r *registration) run(ctx context.Context, config *config) error {
	if !r.noInteractive {
		return errors.New("the stand-in asks no questions: give --no-interactive")
	}
	token, err := r.secret()
	if err != nil {
		return err
	}
	if r.instance == "" || token == "" {
		return errors.New("instance address or token is empty")
	}
	texts := config.Runner.Labels
	if len(texts) == 0 {
		texts = split(r.labels)
	}
	labels, err := parseLabels(texts)
	if err != nil {
		return err
	}
	if r.name == "" {
		r.name, _ = os.Hostname()
	}

	forge := connectTo(r.instance, nil)
	for {
		_, err := forge.Ping(ctx, connect.NewRequest(&pingv1.PingRequest{Data: r.name}))
		if err == nil {
			break
		}
		log.Printf("cannot ping the Gitea instance server: %v", err)
		time.Sleep(time.Second)
	}
	answer, err := forge.Register(ctx, connect.NewRequest(&runnerv1.RegisterRequest{
		Name:      r.name,
		Token:     token,
		Version:   version,
		Labels:    names(labels),
		Ephemeral: r.ephemeral,
	}))
	if err != nil {
		return err
	}
	runner := answer.Msg.GetRunner()
	made := identity{
		ID:        runner.GetId(),
		UUID:      runner.GetUuid(),
		Name:      runner.GetName(),
		Token:     runner.GetToken(),
		Address:   r.instance,
		Labels:    texts,
		Ephemeral: runner.GetEphemeral(),
	}
	if err := made.write(config.Runner.File); err != nil {
		return err
	}
	log.Print("Runner registered successfully.")
	return nil
}

func (r *registration) secret() (string, error) {
	if r.tokenFile != "" {
		text, err := os.ReadFile(r.tokenFile)
		return strings.TrimSpace(string(text)), err
	}
	if r.token != "" {
		return r.token, nil
	}
	return os.Getenv("GITEA_RUNNER_REGISTRATION_TOKEN"), nil
}
