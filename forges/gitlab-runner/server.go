package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

// job is what there is to do, as far as the stand-in does it.
type job struct {
	ID    int64  `json:"id"`
	Token string `json:"token"`
	Info  struct {
		Name string `json:"name"`
	} `json:"job_info"`
	Variables []struct{ Key, Value string } `json:"variables"`
	Steps     []struct {
		Name   string   `json:"name"`
		Script []string `json:"script"`
	} `json:"steps"`
	Image     image             `json:"image"`
	Services  []image           `json:"services"`
	Artifacts []json.RawMessage `json:"artifacts"`
}

type image struct {
	Name  string `json:"name"`
	Alias string `json:"alias"`
}

func (r *runner) info() map[string]any {
	features := map[string]bool{"cancelable": true, "cancel_gracefully": true, "two_phase_job_commit": true, "trace_checksum": true, "trace_size": true}
	return map[string]any{"name": "stand-in", "version": "18.5.0", "platform": "linux", "executor": "docker", "features": features}
}

// requestJob: a refused token makes a runner unhealthy, everything else is no job.
func (r *runner) requestJob() (*job, bool) {
	body := map[string]any{"token": r.Token, "system_id": r.systemID, "info": r.info()}
	var found job
	status, _, err := r.call(http.MethodPost, "jobs/request", nil, body, &found)
	switch {
	case status == http.StatusForbidden:
		return nil, false
	case status == http.StatusCreated && err == nil:
		return &found, true
	case status != http.StatusNoContent:
		log.Printf("WARNING: Checking for jobs... failed: %d %v", status, err)
	}
	return nil, true
}

// report is a job's log and state at the server.
type report struct {
	runner *runner
	job    *job
	text   bytes.Buffer
	sent   int
	state  string
}

// flush sends what is new of the log; whether the job goes on.
func (p *report) flush() bool {
	for p.sent < p.text.Len() {
		piece := p.text.Bytes()[p.sent:]
		headers := map[string]string{"Content-Range": fmt.Sprintf("%d-%d", p.sent, p.sent+len(piece)-1), "Content-Type": "text/plain"}
		status, answer, err := p.runner.call(http.MethodPatch, fmt.Sprintf("jobs/%d/trace", p.job.ID), p.token(headers), piece, nil)
		switch {
		case err != nil && status == 0, status == http.StatusTooManyRequests, status >= 500:
			return true
		case status == http.StatusRequestedRangeNotSatisfiable:
			if _, err := fmt.Sscanf(answer.Get("Range"), "0-%d", &p.sent); err != nil {
				return false
			}
		case status != http.StatusAccepted:
			return false
		default:
			p.sent += len(piece)
			if p.state = answer.Get("Job-Status"); p.state != "running" && p.state != "pending" {
				return false
			}
		}
	}
	return true
}

// keepAlive asks how the job stands when there is nothing to send.
func (p *report) keepAlive() bool {
	status, answer, _ := p.update(map[string]any{"state": "running"})
	if p.state = answer.Get("Job-Status"); p.state == "canceling" || p.state == "canceled" || p.state == "failed" {
		return false
	}
	return status != http.StatusForbidden && status != http.StatusNotFound
}

func (p *report) update(body map[string]any) (int, http.Header, error) {
	body["token"], body["info"] = p.job.Token, p.runner.info()
	return p.runner.call(http.MethodPut, fmt.Sprintf("jobs/%d", p.job.ID), p.token(nil), body, nil)
}

// finish tells the end until it is taken: the log has to be there whole.
func (p *report) finish(state, reason string) {
	for try := 0; try < 10; try++ {
		_ = p.flush()
		sum := fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(p.text.Bytes()))
		output := map[string]any{"checksum": sum, "bytesize": p.text.Len()}
		status, _, err := p.update(map[string]any{"state": state, "failure_reason": reason, "output": output})
		switch {
		case status == http.StatusPreconditionFailed:
			p.sent = 0
		case status == http.StatusOK || status == http.StatusForbidden || status == http.StatusNotFound:
			return
		default:
			log.Printf("WARNING: Submitting job to coordinator... %d %v", status, err)
			time.Sleep(time.Second)
		}
	}
}

func (p *report) token(headers map[string]string) map[string]string {
	all := map[string]string{"JOB-TOKEN": p.job.Token}
	for name, value := range headers {
		all[name] = value
	}
	return all
}

// call sends bytes as they are, and everything else as JSON.
func (r *runner) call(method, path string, headers map[string]string, body, into any) (int, http.Header, error) {
	content, isText := body.([]byte)
	if !isText {
		content, _ = json.Marshal(body)
	}
	request, err := http.NewRequest(method, strings.TrimRight(r.URL, "/")+"/api/v4/"+path, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := (&http.Client{Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		return 0, http.Header{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && into != nil && len(text) > 0 && answer.StatusCode < 300 {
		err = json.Unmarshal(text, into)
	}
	return answer.StatusCode, answer.Header, err
}
