# What people type. Everything a target needs, it sets up itself.
.DEFAULT_GOAL := help
SHELL := /bin/sh
# A newly installed cargo is not yet on this shell's path.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup build up test test-long lint bench figures model sim chaos clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make up ARGS='--regions eu,us --port-base 9000'   passes options on; marquee up --help lists them"

setup: ## Find or install Rust's components, a C compiler, Postgres and Redis
	@scripts/setup

build: setup ## Build the release
	cargo build --release --locked

up: build ## Run a platform of three regions on this machine, with demo data, until Ctrl-C
	@exec target/release/marquee up $(ARGS)

test: setup ## Run everything: unit, integration, end to end
	@if [ -x scripts/test ]; then exec scripts/test $(ARGS); else exec cargo test --workspace --locked $(ARGS); fi

test-long: setup ## The long forms: a million commands, 30,000 damaged journals, two times a hundred kills, 200 schedules of messages
	MODEL_COMMANDS=1000000 FUZZ_CASES=30000 TWO_SECONDS=60 CRASHES=100 REPLICA_SEEDS=200 cargo test -p regional --lib --locked -- \
	  --nocapture --test-threads 1 show::tests::model journal::damage host::tests::two host::tests::crash \
	  replicas::tests::differential

lint: setup ## Format, clippy, licences and sources, the chart
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/cargo-deny check licenses bans sources
	@if [ -x scripts/lint-helm ]; then scripts/lint-helm; fi

bench: build ## Measure everything, on a platform of its own; figures and plots go to target/bench
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || echo "bench: without nginx seat maps have nothing to be compared with (apt-get install nginx-light)"
	target/release/marquee bench all $(ARGS)

figures: setup ## Measure failover, moves, latency and catch-up with 80 ms between regions, as root; ROUNDS=5, ARGS='--only moves'
	@CHAOS_PROFILE=release scripts/chaos --figures $(or $(ROUNDS),5) --out target/figures $(ARGS)

model: setup ## Explore the replication protocol's model in its long form; ARGS name configurations or rules
	cargo run --locked -p protocol-model -- $(ARGS)

sim: setup ## Run the simulation: SEEDS=100000 for a night, SEED=n tells one seed in full
	SEEDS=$(SEEDS) SEED=$(SEED) FIRST=$(FIRST) cargo run --locked -p simulation

chaos: setup ## Real processes under real faults: MINUTES=60 for longer, SEED=n for a schedule again
	@scripts/chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) $(ARGS)

clean: ## Remove what was built
	cargo clean
	rm -rf .tools
