# The commands of the project. Each is a script in scripts/ that says what it does; all of them need root.

.PHONY: demo self-build check test quota soak fuzz deny compat compat-of-jobs bench api-spec picture build install

## a whole CI job on ringer, from nothing
demo:
	@scripts/demo

## ringer, built in a job of ringer without a network, in the image of images/linux: 2 GB and many minutes, not in `make test`
self-build:
	@scripts/self-build

## before each commit: format, lints, unit tests, levels; no daemon is started
check:
	@scripts/check

## everything that is tested: unit, contract, integration, real clients and agents
test:
	@scripts/test

## a job's disk where ext4 and XFS keep it, in a virtual machine; not in `make test`
quota:
	@scripts/quota

## 500 short jobs, eight at a time, whose owners are killed: what the daemon takes must not grow; a shorter one is in `make test`
soak:
	@scripts/install --tests
	RINGER_TEST_SOAK=500 cargo test --locked --test integration soak -- --nocapture

## hostile input for every parser, for some minutes, each time another; a short and fixed run is in `make test`
fuzz:
	RINGER_FUZZ_ROUNDS=$${RINGER_FUZZ_ROUNDS:-200000} RINGER_FUZZ_SEED=$${RINGER_FUZZ_SEED:-$$(date +%s)} \
		cargo test --locked --lib -- panic --nocapture

## licences, sources and forbidden crates, as deny.toml says; installs cargo-deny if it is absent
deny:
	@scripts/deny

## real clients and agents on ringer and on real dockerds, side by side
compat:
	@scripts/compat

## the same through the socket of a job, trusted and under the policy that jobs have; docker-py under it is in `make test`
compat-of-jobs:
	@RINGER_JOB=trusted scripts/compat
	@RINGER_JOB=ci scripts/compat

## ringer and dockerd, timed in one run
bench:
	@scripts/bench
	@scripts/bench-forge

build: install
	cargo build --release --locked

install:
	@scripts/install

## api-spec/ and docs/api.md, from the route table
api-spec:
	RINGER_WRITE_API_SPEC=1 cargo test --lib api::spec

## the picture of the rooms in docs/architecture.md, from the imports
picture:
	RINGER_WRITE_PICTURE=1 cargo test --test levels picture
