# Everything that is done with this repository. `make` alone says what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where `make lab-up` keeps its servers' data, and arguments for fixtures/lab/up.
LAB_DIR ?= .lab/main
LAB_ARGUMENTS ?=

# Only these tests, as `cargo test` takes them, for example TESTS='kills --nocapture'.
TESTS ?=

# Nothing here hangs for ever; a cold run of the tests takes well under 45 minutes on 2 cores.
TEST_SECONDS ?= 3000
LONG_SECONDS ?= 86400

# How long each fuzz target runs, and which of them; without names all.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

.PHONY: help demo demo-stop test soak fuzz bench lab-up lab-down fmt lint toolchains

help: ## say what there is
	@printf 'usage: make TARGET\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14
	@printf '\nServers need Linux; what is missing is said by the target that needs it.\n'

demo: ## migrate a shop from TiDB to OceanBase under live writes, with every step proven
	@fixtures/demo/run

demo-stop: ## stop what `make demo` left running
	@fixtures/demo/stop

test: lint ## run all tests: format, lints, unit tests, integration tests on a lab of their own
	@fixtures/demo/toolchains build lab
	@printf 'test: building\n' >&2
	cargo test --no-run
	@printf 'test: starting a lab of its own\n' >&2
	@fixtures/demo/with-lab .lab/test timeout -k 60 $(TEST_SECONDS) cargo test $(TESTS)

soak: ## run the long tests, those that `make test` leaves out, and the fuzz targets
	@fixtures/demo/toolchains build lab fuzz
	cargo test --release --no-run
	@fixtures/demo/with-lab .lab/soak timeout -k 60 $(LONG_SECONDS) \
	  cargo test --release --test rowproof -- --ignored --nocapture --test-threads 1
	@fixtures/fuzz/run $(FUZZ_SECONDS)

fuzz: ## run the fuzz targets, FUZZ_SECONDS each (600)
	@fixtures/fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: ## measure rowproof beside bare reads and its peers
	@fixtures/demo/toolchains build lab
	cargo bench --bench side_by_side --bench many_tables --bench feed --no-run
	@fixtures/demo/with-lab .lab/bench timeout -k 60 $(LONG_SECONDS) cargo bench --bench side_by_side
	@fixtures/demo/with-lab .lab/bench timeout -k 60 $(LONG_SECONDS) cargo bench --bench many_tables
	@fixtures/demo/with-lab .lab/bench timeout -k 60 $(LONG_SECONDS) cargo bench --bench feed

lab-up: ## start TiDB, OceanBase and Kafka for work by hand
	@fixtures/demo/toolchains lab
	@fixtures/lab/up --dir $(LAB_DIR) $(LAB_ARGUMENTS)

lab-down: ## stop them; their data stay in .lab/main
	@fixtures/lab/down --dir $(LAB_DIR)

fmt: ## format the code
	@fixtures/demo/toolchains build
	cargo fmt

lint: ## check format and lints
	@fixtures/demo/toolchains build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

toolchains: ## check what is installed
	@fixtures/demo/toolchains && printf 'everything is there\n'
