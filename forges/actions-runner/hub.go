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
	"net/url"
	"strings"
	"time"
)

var (
	errConflict = errors.New("a session for this runner already exists")
	errGone     = errors.New("the runner no longer exists on the server")
)

// hub is the service, as a runner sees it: a session, its messages, and the job that one of them names.
type hub struct {
	base    string
	token   string
	session string
}

// message is what the real service calls so; its body is JSON once more.
type message struct {
	ID   int64  `json:"messageId"`
	Type string `json:"messageType"`
	Body string `json:"body"`
}

type jobRequest struct {
	ID            string `json:"runner_request_id"`
	RunServiceURL string `json:"run_service_url"`
}

func connect(ctx context.Context, me *runner) (*hub, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {me.credentials.Data.ClientID}, "client_assertion": {me.credentials.Secret},
	}
	answer, err := http.PostForm(me.credentials.Data.AuthorizationURL, form)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, errGone
	}
	var granted struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&granted); err != nil {
		return nil, err
	}
	h := &hub{base: strings.TrimRight(me.ServerURL, "/"), token: granted.Token}
	var opened struct {
		ID string `json:"sessionId"`
	}
	body := map[string]any{"ownerName": me.AgentName, "agent": map[string]any{"id": me.AgentID, "name": me.AgentName}}
	status, err := h.call(ctx, http.MethodPost, h.base+"/session", body, &opened)
	if status == http.StatusConflict {
		return nil, errConflict
	}
	if err != nil {
		return nil, err
	}
	h.session = opened.ID
	return h, nil
}

// next waits for a message; none may come.
func (h *hub) next(ctx context.Context, status string) (*message, error) {
	var found message
	path := fmt.Sprintf("%s/message?sessionId=%s&status=%s&runnerVersion=stand-in&os=linux", h.base, h.session, status)
	code, err := h.call(ctx, http.MethodGet, path, nil, &found)
	if code == http.StatusNotFound || code == http.StatusUnauthorized {
		return nil, errGone
	}
	if err != nil || code == http.StatusAccepted {
		return nil, err
	}
	return &found, nil
}

func (h *hub) waitForJob(ctx context.Context) (*jobRequest, error) {
	for ctx.Err() == nil {
		found, err := h.next(ctx, "Online")
		if errors.Is(err, errGone) {
			return nil, err
		}
		if err != nil {
			log.Printf("%v: trying again", err)
			pause(ctx, time.Second)
		}
		if found == nil || found.Type != "RunnerJobRequest" {
			continue
		}
		request := &jobRequest{}
		return request, json.Unmarshal([]byte(found.Body), request)
	}
	return nil, errors.New("exiting")
}

func (h *hub) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = h.call(ctx, http.MethodDelete, h.base+"/session?sessionId="+h.session, nil, nil)
}

// call is one exchange in JSON.
func (h *hub) call(ctx context.Context, method, url string, body, into any) (int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+h.token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "actions-runner-stand-in")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return answer.StatusCode, err
	}
	if answer.StatusCode >= 300 {
		return answer.StatusCode, fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, content)
	}
	if into == nil || len(content) == 0 {
		return answer.StatusCode, nil
	}
	return answer.StatusCode, json.Unmarshal(content, into)
}

func pause(ctx context.Context, limit time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(limit):
	}
}
