# The front door. `make help` lists what there is.

# The interpreter that .venv is made with: 3.11 or newer. One named on the command line gets an environment of its own.
PYTHON ?= python3
VENV ?= .venv$(if $(filter command,$(firstword $(origin PYTHON))),-$(notdir $(PYTHON)))
# Other runners of CPython's own tests, and other tools that compare names, which judge after ours where they are named.
SUITE ?=
API ?=
# More interpreters with which the standard package is to talk to ours, with a colon between.
PEERS ?=
export MANIPLE_PEERS := $(PEERS)
# The tests of concurrent.futures, where Python came without; `none` to go without them.
CF_TESTS ?=
# More for the runner of CPython's own tests, such as `-k Queue`.
SUITE_ARGS ?=
# The folder whose words `make demo` counts; the Python standard library if empty.
FOLDER ?=
# The other projects whose tests `make peers` runs, with commas between; all of them if empty.
PEERS_ONLY ?=
# A folder with copies of repositories (NAME-VERSION), for the tests that no package has.
CHECKOUTS ?=
export CHECKOUTS
# The git revision with which `make semver` compares.
SINCE ?= HEAD
# How many random histories `make simulate` plays.
SEEDS ?= 2000000
# Seconds that `make fuzz` takes, and which of its targets it runs (with commas between; all of them if empty).
FUZZ_SECONDS ?= 600
FUZZ_ONLY ?=
# The parts of `make sanitize`, with commas between.
SANITIZERS ?= miri,asan,tsan,memcheck,python
# More for `make faults` and `make chaos`, such as `--only map --method fork` and `--seed 7`.
FAULTS_ARGS ?=
CHAOS_ARGS ?=
# Seconds of `make chaos` and `make soak`; 3600 for an hour.
DURATION ?= 600

# The folder in which `make test-windows` keeps Wine and a compiler for Windows; a folder in the cache if empty.
WINDOWS_KIT ?=
# More for `make wheels`, such as `--only sdist,manylinux-x86_64` and `--quick`.
WHEELS_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

comma := ,
py := $(VENV)/bin/python
setup := scripts/need-cargo.sh && $(PYTHON) scripts/setup.py $(VENV)
# One interpreter for all that compiles the extension, so that no build undoes another's.
export PYO3_PYTHON := $(abspath $(py))

.PHONY: help demo test lint bench clean build format simulate fuzz sanitize bench-full suite frozen peers \
	semver test-standard-fails test-rust test-loom test-python test-api test-cpython test-faults test-chaos \
	faults chaos soak test-windows wheels

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 } /^## / { print "\n" substr($$0, 4) }' $(MAKEFILE_LIST)

## Every day
demo: build ## all examples, in both languages, on real input (FOLDER=...: whose words to count)
	@scripts/demo.sh $(py) $(FOLDER)

test: ## all tests: Rust, loom, Python, faults, chaos, names, CPython's own tests; about 25 minutes on two cores
	@$(setup) extension test cpython
	@$(py) scripts/run_tests.py rust loom python faults chaos api cpython --second-cpython "$(SUITE)" --second-api "$(API)" --cf-tests "$(CF_TESTS)"

lint: ## formatting, clippy, the oldest Rust, other systems, borders, documentation, words, ruff, mypy, the stubs, workflows, lock files; changes nothing
	@$(setup) extension test lint
	@failed=; run() { echo "+ $$*"; "$$@" || failed="$$failed\nlint: failed: $$*"; }; \
	run cargo fmt --all --check -- -l; \
	run cargo fmt --check --manifest-path benchmarks/rust/Cargo.toml -- -l; \
	run cargo clippy --quiet --locked --workspace --all-targets --all-features -- -D warnings; \
	run cargo clippy --quiet --locked -p maniple --no-default-features -- -D warnings; \
	run scripts/check_msrv.sh; \
	run scripts/check_targets.sh; \
	run $(py) scripts/check_borders.py; \
	run env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --all-features --workspace --document-private-items; \
	run $(py) -m ruff check --output-format concise .; \
	run $(py) -m ruff format --check .; \
	run $(py) -m mypy; \
	run $(py) -m mypy.stubtest --mypy-config-file pyproject.toml --concise --ignore-unused-allowlist \
		--allowlist tests/typing/stubtest.txt maniple._maniple; \
	run $(py) scripts/check_docs.py; \
	run $(py) scripts/check_words.py; \
	run scripts/check_workflows.sh $(py); \
	run scripts/check_locks.sh; \
	run scripts/check_dependencies.sh; \
	if [ -z "$$failed" ]; then echo "lint: all clean"; else printf "%b\n" "$$failed" >&2; exit 1; fi

bench: build ## the short benchmarks: against the standard package, and against Rust peers
	@$(setup) test
	$(py) benchmarks/python/run.py --quick --payloads
	scripts/bench_rust.sh --quick

clean: ## remove all that was built, the virtual environment included
	rm -rf target fuzz/target benchmarks/rust/target benchmarks/results build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	if [ -e $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV) $(VENV)-frozen; fi

## Now and then
build: ## .venv with the package in it, built in release mode
	@$(setup) extension

format: ## what lint's formatters ask for
	@$(setup) lint
	cargo fmt --all
	cargo fmt --manifest-path benchmarks/rust/Cargo.toml
	$(py) -m ruff check --fix .
	$(py) -m ruff format .

test-rust test-loom test-python test-faults test-chaos test-api test-cpython: ## one part of the tests
	@$(setup) extension test $(if $(filter test-cpython,$@),cpython)
	@$(py) scripts/run_tests.py $(@:test-%=%) --second-cpython "$(SUITE)" --second-api "$(API)" --cf-tests "$(CF_TESTS)"

## Longer
semver: ## what changed for users of the crate since a git revision (SINCE=...); needs cargo-semver-checks
	cargo semver-checks --package maniple --all-features --baseline-rev $(SINCE)

test-windows: ## the conformance suite as a Windows program under Wine; not in make test (WINDOWS_KIT=...: a folder to keep)
	@scripts/need-cargo.sh
	@scripts/test_windows.sh $(WINDOWS_KIT)

wheels: ## wheels for Linux and Windows, and the source distribution, into dist; each checked and tried (WHEELS_ARGS="--only sdist")
	@scripts/need-cargo.sh
	@$(PYTHON) scripts/wheels.py $(if $(WINDOWS_KIT),--windows-kit $(WINDOWS_KIT)) $(WHEELS_ARGS)

simulate: ## the scheduler through two million random histories (SEEDS=...)
	@scripts/need-cargo.sh
	MANIPLE_SEEDS=$(SEEDS) cargo test --locked -p maniple-engine --release --test it simulation:: -- --nocapture

fuzz: ## every parser of another process's bytes under libFuzzer; ten minutes (FUZZ_SECONDS=..., FUZZ_ONLY=link,log)
	@$(setup)
	@$(PYTHON) scripts/fuzz.py $(py) --seconds $(FUZZ_SECONDS) --only "$(FUZZ_ONLY)"

sanitize: ## the tests under Miri, AddressSanitizer, ThreadSanitizer, valgrind (SANITIZERS=asan,python)
	@$(setup) test
	@$(PYTHON) scripts/sanitize.py $(py) --only "$(SANITIZERS)"

faults: build ## each call to the system fails, one by one, in every operation of both languages; half an hour (FAULTS_ARGS=...)
	@$(setup) test
	$(py) tests/faults/walk.py --front rust,python $(FAULTS_ARGS)

chaos: build ## kills, stops and shortages at random, ten minutes of them (DURATION=..., CHAOS_ARGS="--seed 7")
	@$(setup) test
	$(py) tests/chaos/chaos.py --seconds $(DURATION) $(CHAOS_ARGS)

soak: build ## ten minutes of work, kills and shortages: nothing grows; a picture in build/soak (DURATION=3600: an hour)
	@$(setup) test soak
	$(py) scripts/soak.py --seconds $(DURATION)

bench-full: build ## every peer, more rounds; half an hour
	@$(setup) test bench
	$(py) benchmarks/python/run.py
	scripts/bench_rust.sh

test-standard-fails: ## the failure tests against the standard package, to show that they catch its faults
	@$(setup) test
	$(py) tests/python/standard_fails.py

frozen: build ## a program frozen by PyInstaller, in every start method, compared with the standard package
	$(py) scripts/check_frozen.py $(VENV)

suite: build ## CPython's own tests of multiprocessing and of process pools (PYTHON=..., SUITE_ARGS="-k Queue")
	@$(setup) cpython
	$(py) tests/cpython/run.py --suites mp,main$(if $(filter none,$(CF_TESTS)),,$(comma)cf$(comma)ex) \
		--cf-tests "$(filter-out none,$(CF_TESTS))" $(SUITE_ARGS)
	$(if $(SUITE),$(py) scripts/run_suite.py "$(SUITE)" --cf-tests "$(CF_TESTS)" $(SUITE_ARGS))

peers: build ## other projects' tests on maniple, against the standard package (PEERS_ONLY=joblib,...); hours for all of them
	$(py) scripts/peers $(subst $(comma), ,$(PEERS_ONLY))
