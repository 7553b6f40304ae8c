// A stand-in for Woodpecker's agent, whose module no proxy serves: its variables, its protocol (rpc/proto/woodpecker.proto, version 16)
// and its docker backend, for one workflow. It runs steps for real. It lacks what tests do not ask for: other backends, plugins' settings,
// detached steps, secrets that are masked; and it says that it is a stand-in.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// The version of the protocol.
const protocol = "16"

func main() {
	log.SetFlags(0)
	log.Print("This is a stand-in for woodpecker-agent")
	if os.Getenv("WOODPECKER_AGENT_SINGLE_WORKFLOW") != "true" || os.Getenv("WOODPECKER_BACKEND") != "docker" {
		log.Fatal("stand-in: only WOODPECKER_AGENT_SINGLE_WORKFLOW=true with WOODPECKER_BACKEND=docker can be carried out")
	}
	told, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer done()
	if err := work(told); err != nil {
		log.Fatal("error running agent: ", err)
	}
	log.Print("shutdown of whole agent")
}

func secret() string {
	if path := os.Getenv("WOODPECKER_AGENT_SECRET_FILE"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	return os.Getenv("WOODPECKER_AGENT_SECRET")
}

func work(told context.Context) error {
	server := connect(os.Getenv("WOODPECKER_SERVER"))
	if err := server.authorize(told, secret()); err != nil {
		return err
	}
	version, err := server.call(told, "Version", nil)
	if err != nil {
		log.Print("could not get grpc server version")
		return err
	}
	if got := version.number(1); got != 16 {
		log.Printf("server version %s does report grpc version %d but we only understand 16: GRPC version mismatch", version.text(2), got)
		return errVersion
	}
	labels := map[string]string{"hostname": os.Getenv("WOODPECKER_HOSTNAME"), "platform": platform, "backend": "docker", "repo": "*"}
	custom := message{}
	for _, label := range strings.Split(os.Getenv("WOODPECKER_AGENT_LABELS"), ",") {
		if name, value, found := strings.Cut(label, "="); found {
			labels[name] = value
			custom.entry(5, name, value)
		}
	}
	info := message{}
	info.putText(1, platform)
	info.putNumber(2, 1)
	info.putText(3, "docker")
	info.putText(4, "stand-in")
	info = append(info, custom...)
	register := message{}
	register.putBytes(1, info)
	if _, err := server.call(told, "RegisterAgent", register); err != nil {
		return err
	}
	health := message{}
	health.putText(1, "I am alive!")
	if _, err := server.call(told, "ReportHealth", health); err != nil {
		return err
	}
	log.Print("polling new workflow")
	filter, next := message{}, message{}
	for name, value := range labels {
		filter.entry(1, name, value)
	}
	next.putBytes(1, filter)
	answer, err := server.call(told, "Next", next)
	if err != nil {
		log.Printf("runner done with error: %v", err)
		return nil
	}
	if found := fields(answer.bytes(1)); found.text(1) != "" {
		return serve(told, server, found.text(1), found.bytes(3))
	}
	return nil
}

func pause(ctx context.Context, limit time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(limit):
	}
}
