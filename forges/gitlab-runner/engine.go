package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// login is for the registry of an image.
type login struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// engine is Docker's API on a socket.
type engine struct{ client *http.Client }

func dial(host string) *engine {
	path := strings.TrimPrefix(host, "unix://")
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &engine{&http.Client{Transport: &http.Transport{DialContext: connect}}}
}

// do answers the body, which its caller closes; a refusal is in the daemon's words.
func (e *engine) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	return e.doAs(ctx, login{}, method, path, body)
}

// doAs sends the credentials for a registry along, if there are any.
func (e *engine) doAs(ctx context.Context, who login, method, path string, body any) (io.ReadCloser, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.44/"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if who.Username != "" {
		auth, err := json.Marshal(who)
		if err != nil {
			return nil, err
		}
		request.Header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(auth))
	}
	answer, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var refusal struct{ Message string }
	_ = json.NewDecoder(answer.Body).Decode(&refusal)
	return nil, fmt.Errorf("Error response from daemon: %s", refusal.Message)
}

func (e *engine) call(ctx context.Context, method, path string, body, into any) error {
	answer, err := e.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, answer)
		return err
	}
	return json.NewDecoder(answer).Decode(into)
}

// pull reads the messages to their end: a failure is one of them.
func (e *engine) pull(ctx context.Context, image string, who login) error {
	answer, err := e.doAs(ctx, who, http.MethodPost, "images/create?fromImage="+url.QueryEscape(tagged(image)), nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	messages := json.NewDecoder(answer)
	for {
		var message struct{ Error string }
		if err := messages.Decode(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		} else if message.Error != "" {
			return fmt.Errorf("failed to pull image %q: %s", image, message.Error)
		}
	}
}

func tagged(image string) string {
	if strings.Contains(image[strings.LastIndex(image, "/")+1:], ":") {
		return image
	}
	return image + ":latest"
}

// create answers the id.
func (e *engine) create(ctx context.Context, name string, body map[string]any) (string, error) {
	var made struct{ ID string }
	err := e.call(ctx, http.MethodPost, "containers/create?name="+name, body, &made)
	return made.ID, err
}

// follow copies what a container without a terminal says, until it ends.
func (e *engine) follow(ctx context.Context, id string, into io.Writer) error {
	answer, err := e.do(ctx, http.MethodGet, "containers/"+id+"/logs?stdout=1&stderr=1&follow=1", nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	header := make([]byte, 8)
	for {
		if _, err := io.ReadFull(answer, header); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		size := int64(header[4])<<24 | int64(header[5])<<16 | int64(header[6])<<8 | int64(header[7])
		if _, err := io.CopyN(into, answer, size); err != nil {
			return err
		}
	}
}
