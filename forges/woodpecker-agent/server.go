package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
)

const platform = "linux/" + runtime.GOARCH

var errVersion = errors.New("GRPC version mismatch")

// server is Woodpecker's gRPC service, without TLS: unary calls are one framed message each way.
type server struct {
	client *http.Client
	base   string
	token  string
}

func connect(address string) *server {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &server{client: &http.Client{Transport: &http.Transport{Protocols: protocols}}, base: "http://" + address}
}

// authorize gets the token that all other calls carry.
func (s *server) authorize(ctx context.Context, secret string) error {
	ask := message{}
	ask.putText(1, secret)
	ask.putNumber(2, -1)
	answer, err := s.exchange(ctx, "/proto.WoodpeckerAuth/Auth", ask)
	if err != nil {
		return fmt.Errorf("agent could not auth: %w", err)
	}
	s.token = answer.text(3)
	return nil
}

func (s *server) call(ctx context.Context, method string, ask message) (parsed, error) {
	return s.exchange(ctx, "/proto.Woodpecker/"+method, ask)
}

func (s *server) exchange(ctx context.Context, path string, ask message) (parsed, error) {
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(ask)))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, bytes.NewReader(append(frame, ask...)))
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/grpc", "TE": "trailers", "token": s.token, "hostname": os.Getenv("WOODPECKER_HOSTNAME"), "proto-version": protocol,
	} {
		request.Header.Set(name, value)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	// An error may come without a body, with its status where headers are.
	told := answer.Trailer
	if told.Get("Grpc-Status") == "" {
		told = answer.Header
	}
	if code := told.Get("Grpc-Status"); code != "0" {
		said, _ := url.PathUnescape(told.Get("Grpc-Message"))
		return nil, fmt.Errorf("rpc error: code = %s desc = %s", code, said)
	}
	if len(content) < 5 {
		return nil, fmt.Errorf("rpc error: %d bytes are no message", len(content))
	}
	return fields(content[5:]), nil
}
