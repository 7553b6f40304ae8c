package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// runner is one of config.toml's, as far as the stand-in reads it.
type runner struct {
	Name     string `toml:"name"`
	URL      string `toml:"url"`
	Token    string `toml:"token"`
	Executor string `toml:"executor"`
	Docker   docker `toml:"docker"`
	systemID string
}

type docker struct {
	Host                      string   `toml:"host"`
	Image                     string   `toml:"image"`
	Privileged                bool     `toml:"privileged"`
	ServicesPrivileged        *bool    `toml:"services_privileged"`
	AllowedPrivilegedServices []string `toml:"allowed_privileged_services"`
	Volumes                   []string `toml:"volumes"`
}

var validSystemID = regexp.MustCompile("^[sr]_[0-9a-zA-Z]{12}$")

func load(path, name string) (*runner, error) {
	var file struct {
		Runners []*runner `toml:"runners"`
	}
	if _, err := toml.DecodeFile(path, &file); err != nil {
		return nil, fmt.Errorf("error loading config: %w", err)
	}
	for _, found := range file.Runners {
		if found.Name != name {
			continue
		}
		if found.URL == "" || found.Token == "" || found.Executor != "docker" {
			return nil, fmt.Errorf("missing URL or Token, or Executor is not docker")
		}
		found.systemID = systemID(filepath.Join(filepath.Dir(path), ".runner_system_id"))
		return found, nil
	}
	return nil, fmt.Errorf("error loading runner by name: %s is not there", name)
}

// systemID is random where the file holds none of the right form.
func systemID(path string) string {
	text, _ := os.ReadFile(path)
	if id := strings.TrimSpace(string(text)); validSystemID.MatchString(id) {
		return id
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	return "r_" + hex.EncodeToString(random)
}
