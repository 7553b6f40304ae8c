package main

import (
	"fmt"
	"strings"
)

// onHost is what the engine takes for "no container".
const onHost = "-self-hosted"

// label is `name[:schema[:argument]]`: what jobs ask for in `runs-on`, and what they get.
type label struct {
	name, schema, argument string
}

func parseLabels(texts []string) ([]label, error) {
	labels := []label{}
	for _, text := range texts {
		name, rest, _ := strings.Cut(strings.TrimSpace(text), ":")
		schema, argument, _ := strings.Cut(rest, ":")
		if schema == "" {
			schema = "host"
		}
		if schema != "host" && schema != "docker" {
			return nil, fmt.Errorf("unsupported schema: %s", schema)
		}
		labels = append(labels, label{name: name, schema: schema, argument: strings.TrimPrefix(argument, "//")})
	}
	return labels, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// names is all that a server is told.
func names(labels []label) []string {
	var names []string
	for _, label := range labels {
		names = append(names, label.name)
	}
	return names
}

func needsDocker(labels []label) bool {
	for _, label := range labels {
		if label.schema == "docker" {
			return true
		}
	}
	return false
}

// platform is the image for a job, or that it runs here: the first of its labels that is ours decides.
func platform(labels []label, runsOn []string, otherwise string) string {
	for _, wanted := range runsOn {
		for _, label := range labels {
			if label.name != wanted {
				continue
			}
			if label.schema == "host" {
				return onHost
			}
			return label.argument
		}
	}
	return otherwise
}
