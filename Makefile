# The ways in. Each target does its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
DEBUG := $(CURDIR)/target/debug
# The module as cargo builds it: for Envoys on this machine. What is shipped, and
# tested, is built by envoy/build-module.sh against an older glibc, and checked.
MODULE := $(DEBUG)/libtidegate_module.so

.PHONY: help demo check test soak bench fuzz golden lint envoy tools build

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: build envoy tools ## run examples/quickstart until Ctrl-C (CHECK=1: try it and end)
	@TIDEGATE_ENVOY="$$(bash envoy/install.sh)" TIDEGATE_MODULE="$(MODULE)" \
	  TIDEGATE="$(DEBUG)/tidegate" CHECK="$(CHECK)" examples/quickstart/demo.sh

check: lint ## format, lints, and the tests that need no process but ours
	$(CARGO) test --lib --test compile --test golden --test order --test protocol --test tidy

test: envoy tools build ## everything, against stock Envoy and real DNS tools
	module="$$(bash envoy/build-module.sh)" && \
	  TIDEGATE_ENVOY="$$(bash envoy/install.sh)" TIDEGATE_MODULE="$$module" $(CARGO) test --workspace --no-fail-fast
	$(CARGO) test --features planted --test simulation planted
	$(MAKE) demo CHECK=1

SEEDS ?= 1000000

FROM ?= 1000000
soak: SECONDS ?= 600
soak: ## the simulation from seed FROM, SEEDS seeds or SECONDS seconds
	FROM=$(FROM) SEEDS=$(SEEDS) SECONDS=$(SECONDS) $(CARGO) test --test simulation seeds -- --nocapture

bench: envoy ## all figures of BENCHMARKS.md (ARGS="--only restart": a part of them)
	$(CARGO) build --release -p tidegate-module
	TIDEGATE_ENVOY="$$(bash envoy/install.sh)" TIDEGATE_MODULE="$(CURDIR)/target/release/libtidegate_module.so" \
	  $(CARGO) bench --bench served -- $(ARGS)

# Coverage for libFuzzer, of stable flags; a crash is kept in target/fuzz.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_TRIPLE := $(shell rustc -vV | sed -n 's/host: //p')
TARGET ?= yaml road session dns


fuzz: SECONDS ?= 60
fuzz: ## hostile input by libFuzzer (TARGET=yaml|road|session|dns SECONDS=60, or INPUT=a crash)
	cp Cargo.lock tests/fuzz/Cargo.lock
	cd tests/fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --target $(FUZZ_TRIPLE) --target-dir ../../target/fuzz
	@set -e; for target in $(TARGET); do \
	  run="target/fuzz/$(FUZZ_TRIPLE)/release/$$target -timeout=10 -rss_limit_mb=512 -artifact_prefix=target/fuzz/$$target-"; \
	  if [ -n "$(INPUT)" ]; then $$run "$(INPUT)"; else \
	    mkdir -p target/fuzz/corpus/$$target; \
	    case $$target in \
	      yaml|road) mkdir -p target/fuzz/golden; \
	        for case in tests/golden/*/in.yaml; do cp $$case target/fuzz/golden/$$(basename $$(dirname $$case)).yaml; done; \
	        more="target/fuzz/golden -max_len=16384 -dict=tests/fuzz/manifests.dict";; \
	      *) more="-max_len=1024";; \
	    esac; \
	    $$run -max_total_time=$(SECONDS) -print_final_stats=1 target/fuzz/corpus/$$target tests/fuzz/corpus/$$target $$more; \
	  fi; \
	done

golden: ## write the golden files anew; look at the diff
	GOLDEN_WRITE=1 $(CARGO) test --test golden

lint: ## formatting and clippy, warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

build:
	$(CARGO) build --workspace

envoy: ## install the stock Envoy of envoy/VERSION into the cache
	@bash envoy/install.sh >/dev/null

# What tests and the demo call by name.
tools:
	@missing=""; \
	command -v dig >/dev/null || missing="$$missing bind9-dnsutils"; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	  else \
	    echo "missing:$$missing (Debian packages). Install them: sudo apt-get install$$missing" >&2; exit 1; \
	  fi; \
	fi
