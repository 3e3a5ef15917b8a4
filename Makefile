CARGO ?= cargo
# Where cargo puts what it builds.
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
ADAPTER ?= $(TARGET)/debug/karmada-metrics-adapter
# What the image's binary is built for: Linux without any libraries.
STATIC_TARGET ?= $(shell uname -m)-unknown-linux-musl
STATIC_ADAPTER ?= $(abspath $(TARGET))/$(STATIC_TARGET)/release/karmada-metrics-adapter

.PHONY: help run test e2e bench bench-quick bench-programs contract lint docs static static-path static-test

help: ## List what can be made.
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1 - \2/p' $(MAKEFILE_LIST)

run: ## Build everything and play the FederatedHPA walkthrough, about two minutes; HOLD=1 keeps it up.
	$(CARGO) build --workspace --bins
	$(TARGET)/debug/fleet walkthrough --adapter $(ADAPTER) --log $(TARGET)/walkthrough.log $(if $(filter-out 0,$(HOLD)),--hold)

test: ## Run all tests.
	$(CARGO) test --workspace

e2e: ## Test the adapter between real kube-apiservers, Prometheus and autoscalers (CONTRIBUTING.md); NAMES='freezes' runs some.
	$(CARGO) build --workspace --bins
	$(TARGET)/debug/e2e --adapter $(ADAPTER) --logs $(TARGET)/e2e $(NAMES)

# What is measured: the image's binary, and where they are named another build of it and the reference.
BENCH = $(TARGET)/release/bench
BENCH_FLAGS = --adapter $(STATIC_ADAPTER) --output $(TARGET)/bench \
	$(if $(BASELINE),--baseline $(abspath $(BASELINE))) $(if $(REFERENCE),--reference $(abspath $(REFERENCE))) \
	$(if $(ONLY),--only '$(ONLY)')

bench-programs: static
	$(CARGO) build --release --locked --package bench --bins

bench: bench-programs ## Measure everything and write docs/performance.md; REFERENCE=PATH, BASELINE=PATH, ONLY='100 × 50' (docs/performance.md).
	$(BENCH) full $(BENCH_FLAGS)
	$(if $(ONLY),,$(BENCH) document $(TARGET)/bench/full.json)

bench-quick: bench-programs ## Measure two fleets beside the floor in less than three minutes; BASELINE=PATH compares with another build.
	$(BENCH) quick $(BENCH_FLAGS)

contract: ## Ask the adapter what the reference was recorded to answer; REFERENCE=PATH asks that binary too.
	REFERENCE=$(abspath $(REFERENCE)) $(CARGO) test --test it -- contract:: reference::

lint: ## Check format, lints and documentation.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings --document-private-items" $(CARGO) doc --workspace --no-deps

docs: ## Write anew what documents take from the code.
	UPDATE_DOCS=1 $(CARGO) test --lib cli::tests::document
	UPDATE_DOCS=1 $(CARGO) test --test it scaling::

static: ## Build the binary of the image, which needs no libraries; musl-gcc has to be there (Debian's musl-tools).
	test -d "$$(rustc --print sysroot)/lib/rustlib/$(STATIC_TARGET)" || rustup target add $(STATIC_TARGET)
	$(CARGO) build --release --locked --target $(STATIC_TARGET)

static-path:
	@echo $(STATIC_ADAPTER)

static-test: ## Start that binary in an empty root, with the arguments of each of Karmada's installers.
	STATIC_ADAPTER=$(STATIC_ADAPTER) $(CARGO) test --test it variants::minimal_image
