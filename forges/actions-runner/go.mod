module ringer/forges/actions-runner

go 1.26
