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

.PHONY: release
release: ## Build the optimised program
	$(MAKE) build PROFILE=release

.PHONY: clean
clean: ## Remove what was built; the RocksDB archive stays
	cargo clean
