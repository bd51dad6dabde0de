# Everything sets itself up: `make demo` and `make test` need only Python 3.11 or newer and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Another port for the gateway of `make demo`: make demo PORT=8081
PORT ?=
# Flags of the benchmark: make bench BENCH=--quick
BENCH ?=

.PHONY: setup demo down check test test-unit test-hostile test-conformance test-exact test-interop fuzz bench cometbft conformance conformance-cids docs format lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Lichen needs Python 3.11 or newer"; exit 1; }
	@echo "Setting up $(VENV) with the pinned packages ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# A network in the background, the examples deployed, called, verified and paid for.
demo: setup
	@PORT=$(PORT) $(BIN)/python examples/demo.py

down: setup
	@$(BIN)/lichen down

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-unit: setup
	$(BIN)/pytest -q tests/unit

test: setup
	$(BIN)/lichen setup
	$(BIN)/pytest -q $(wildcard tests/unit tests/integration tests/simulation)

# Everything that reads what strangers send, fed by coverage: make fuzz SECONDS=600 TARGET=car
SECONDS ?= 60
TARGET ?=
fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(addprefix --target ,$(TARGET))

# The attacks that take more machine than a test should: 10,000 connections, a million blocks.
test-hostile: setup
	$(BIN)/pytest -q -s tests/hostile

# CIDs, records and proofs beside the implementations of others, from packages that are locked.
test-conformance: setup
	$(BIN)/lichen setup
	$(BIN)/pytest -q tests/conformance

# With other people's software: a real Kubo, a real Helia, nginx in front, ledgers by CometBFT.
test-interop: setup
	$(BIN)/lichen setup
	$(BIN)/pytest -q tests/interop

# The official suite of IPFS gateways; Go installs it: make conformance SUITE="--only TestTar --verbose"
SUITE ?=
conformance: setup
	$(BIN)/lichen setup
	$(BIN)/python tests/conformance/gateway_suite.py $(SUITE)

# Exact execution says the same again and again, in four processes and two ways of compiling.
RUNS ?= 10000
test-exact: setup
	$(BIN)/lichen setup
	$(BIN)/pytest -q tests/exact
	$(BIN)/python -m tests.exact.exact_matrix --runs $(RUNS)

# Root CIDs of a 300 MB file and of 100,000 entries, beside Kubo's: over a minute.
conformance-cids: setup
	$(BIN)/pytest -q tests/conformance/large_unixfs_kubo.py

# CometBFT, by which several operators agree on the ledger; Go builds it, once.
cometbft: setup
	$(BIN)/lichen ledger setup

bench: setup
	$(BIN)/lichen setup
	$(BIN)/python bench/run.py $(BENCH)

# docs/cli.md and docs/lichen.schema.json, from the code.
docs: setup
	$(BIN)/python -m lichen.cli.reference docs

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/runtime.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --group dev -o requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
