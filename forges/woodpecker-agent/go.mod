module ringer/forges/woodpecker-agent

go 1.26
