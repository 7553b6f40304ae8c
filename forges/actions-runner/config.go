package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// The listener takes every argument from such a variable too.
const jitConfig = "ACTIONS_RUNNER_INPUT_JITCONFIG"

// runner is what its files say.
type runner struct {
	AgentID     int64  `json:"AgentId"`
	AgentName   string `json:"AgentName"`
	Ephemeral   bool   `json:"Ephemeral"`
	GitHubURL   string `json:"GitHubUrl"`
	ServerURL   string `json:"ServerUrlV2"`
	WorkFolder  string `json:"WorkFolder"`
	Misbehave   string `json:"StandInMisbehave"`
	root        string
	credentials credentials
}

type credentials struct {
	Scheme string `json:"scheme"`
	Data   struct {
		ClientID         string `json:"clientId"`
		AuthorizationURL string `json:"authorizationUrl"`
	} `json:"data"`
	// In the place of a key to sign with.
	Secret string
}

// configure writes the files of the configuration beside the programs, and hides the variable that it came in.
func configure() (*runner, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(filepath.Dir(program))
	encoded := os.Getenv(jitConfig)
	if err := os.Unsetenv(jitConfig); err != nil {
		return nil, err
	}
	if encoded == "" {
		return nil, fmt.Errorf("not configured: %s is not set", jitConfig)
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("the configuration is not base64: %w", err)
	}
	files := map[string][]byte{}
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, fmt.Errorf("the configuration is not what was expected: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, filepath.Base(name)), content, 0o600); err != nil {
			return nil, err
		}
	}
	me := &runner{root: root}
	if err := json.Unmarshal(files[".runner"], me); err != nil {
		return nil, fmt.Errorf(".runner: %w", err)
	}
	if err := json.Unmarshal(files[".credentials"], &me.credentials); err != nil {
		return nil, fmt.Errorf(".credentials: %w", err)
	}
	me.credentials.Secret = string(files[".credentials_rsaparams"])
	return me, nil
}

// work is a path below the work folder, which is made.
func (r *runner) work(parts ...string) (string, error) {
	path := filepath.Join(append([]string{r.root, r.WorkFolder}, parts...)...)
	return path, os.MkdirAll(path, 0o755)
}
