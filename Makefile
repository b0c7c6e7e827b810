# Everything a newcomer needs: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Builds live outside the checkout, so that clones share them. RocksDB, the one slow dependency, is compiled once and
# kept as an archive that every profile links.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/almanac
export CARGO_TARGET_DIR ?= $(CACHE)/target
export ROCKSDB_LIB_DIR ?= $(CACHE)/rocksdb
export ROCKSDB_STATIC = 1
export CONFORMANCE_DIR ?= $(abspath ../shared/conformance)
PROFILE ?= dev
BIN = $(CARGO_TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/almanac

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: deps
deps: $(ROCKSDB_LIB_DIR)/librocksdb.a ## Install what building needs (Debian and Ubuntu), and compile RocksDB once

$(ROCKSDB_LIB_DIR)/librocksdb.a: tools/install-packages tools/build-rocksdb
	@tools/install-packages
	@tools/build-rocksdb $(ROCKSDB_LIB_DIR)

.PHONY: build
build: deps ## Build the program
	cargo build --profile $(PROFILE) --bin almanac

.PHONY: run
run: build ## Build, and run both tiers with config/standalone.yml: http://localhost:9090 and http://localhost:9201
	$(BIN) standalone --config.file=config/standalone.yml --storage.path=$(or $(DATA),data) --web.enable-lifecycle

.PHONY: test
test: deps ## Run all tests
	cargo test --workspace --no-fail-fast

.PHONY: check
check: deps ## Format, lints as errors, documentation, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items
	tools/check-licences

.PHONY: bench
bench: deps ## Run the benchmarks; one with BENCH=name
	cargo bench $(if $(BENCH),--bench $(BENCH))

.PHONY: bench-smoke
bench-smoke: deps ## Run every benchmark in a tiny size, only to see that it works
	cargo bench --profile dev -- --test

CLUSTER_PODS ?= 50000
CLUSTER_NODES ?= 5000
CLUSTER_SECONDS ?= 120

.PHONY: bench-cluster
bench-cluster: ## Discovery of a simulated cluster: memory, CPU and delay, with CLUSTER_PODS, CLUSTER_NODES, CLUSTER_SECONDS
	CLUSTER_PODS=$(CLUSTER_PODS) CLUSTER_NODES=$(CLUSTER_NODES) CLUSTER_SECONDS=$(CLUSTER_SECONDS) \
		nice cargo test --release -p scraper --test cluster

# cargo-fuzz wants switches of a nightly compiler; the stable one takes them when asked like this.
FUZZ_SECONDS ?= 600
FUZZ_CORPUS ?= $(CACHE)/fuzz
FUZZ_TARGETS ?= promql_parser promql_script promql_eval scrape_text scrape_openmetrics scrape_protobuf body_encoding relabel \
	configuration discovery otlp tsdb remote_write remote_read longterm_store
# Files of the local store are longer than queries.
FUZZ_FILE_LEN = 32768

.PHONY: fuzz
fuzz: deps ## Fuzz what reads foreign text: FUZZ_SECONDS=600 for each of FUZZ_TARGETS
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	mkdir -p $(FUZZ_CORPUS)
	cargo run --quiet -p promql-testkit --example fuzz_seeds -- $(FUZZ_CORPUS)
	for target in $(FUZZ_TARGETS); do \
		mkdir -p $(FUZZ_CORPUS)/$$target; \
		length=4096; if [ $$target = tsdb ]; then length=$(FUZZ_FILE_LEN); fi; \
		RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/fuzz ALMANAC_FUZZ_SEEDS=$(FUZZ_CORPUS)/$$target \
			nice cargo fuzz run $$target $(FUZZ_CORPUS)/$$target -- \
			-dict=$(FUZZ_CORPUS)/promql.dict -max_total_time=$(FUZZ_SECONDS) -max_len=$$length -timeout=10 -rss_limit_mb=2048 || exit 1; \
	done

PROPERTY_SECONDS ?= 600

.PHONY: property
property: ## Compare random PromQL queries with the reference evaluator: PROPERTY_SECONDS=600, from ALMANAC_SEED on
	ALMANAC_PROPERTY_SECONDS=$(PROPERTY_SECONDS) ALMANAC_PROPERTY_FAILURES=$(or $(ALMANAC_PROPERTY_FAILURES),20) \
		nice cargo test -p promql-testkit --test property -- --nocapture

CRASH_SEEDS ?= 5000
CRASH_FROM ?= 0

.PHONY: crash
crash: ## Random histories of the local store on a disk that fails: CRASH_SEEDS=5000 from CRASH_FROM=0 on; SEED=… for one, step by step
	$(if $(SEED),ALMANAC_CRASH_SEED=$(SEED)) ALMANAC_CRASH_SEEDS=$(CRASH_SEEDS) ALMANAC_CRASH_FROM=$(CRASH_FROM) \
		nice cargo test -p tsdb --lib what_was_acknowledged_survives -- --nocapture

ROUNDS ?= 200

.PHONY: kill-loop
kill-loop: deps ## kill -9 of the program under remote write and queries, ROUNDS=200 times, then everything is looked for
	ALMANAC_KILL_ROUNDS=$(ROUNDS) nice cargo test --test e2e what_was_answered_survives_kill_nine -- --nocapture

.PHONY: pair-kill-loop
pair-kill-loop: deps ## kill -9 of scraper node and long-term node, ROUNDS=200 times from SEED=1 on, then both are compared
	ALMANAC_KILL_ROUNDS=$(ROUNDS) ALMANAC_SEED=$(or $(SEED),1) \
		nice cargo test --test e2e a_pair_that_is_killed_at_random -- --nocapture

SIM_SEEDS ?= 300
SIM_SEED ?= 1

.PHONY: sim
sim: deps ## Federation under random faults on simulated time: SIM_SEEDS=300 from SIM_SEED=1 on
	ALMANAC_SIM_SEEDS=$(SIM_SEEDS) ALMANAC_SEED=$(SIM_SEED) \
		nice cargo test -p federation --test simulation -- --nocapture nothing_is_lost

COMPARE_SECONDS ?= 600
COMPARE_SEED ?= 1

.PHONY: compare
compare: build ## Random queries to prometheus and to almanac, answers compared: COMPARE_SECONDS=600 COMPARE_SEED=1
	cargo build -p promql-compare
	tools/compare-with-prometheus $(BIN) $(dir $(BIN))promql-compare --seconds $(COMPARE_SECONDS) --seed $(COMPARE_SEED)

.PHONY: release
release: ## Build the optimised program
	$(MAKE) build PROFILE=release

.PHONY: clean
clean: ## Remove what was built; the RocksDB archive stays
	cargo clean
