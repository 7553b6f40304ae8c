# The commands of the project. Each is a script in scripts/ that says what it does; all of them need root.

.PHONY: demo test compat bench build install

## a whole CI job on ringer, from nothing
demo:
	@scripts/demo

## everything that is tested: unit, contract, integration, real clients and agents
test:
	@scripts/test

## real clients and agents on ringer and on real dockerds, side by side
compat:
	@scripts/compat

## ringer and dockerd, timed in one run
bench:
	@scripts/bench

build: install
	cargo build --release --locked

install:
	@scripts/install
