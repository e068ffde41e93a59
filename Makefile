# Two commands for newcomers: `make demo` and `make test`. The rest is for those who change things.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test unit histories mutants chaos prove check lint types imports protos bench lock clean

## demo: install what is pinned, start everything, and play the factory story
demo: $(VENV)/.runtime
	@$(BIN)/python -m fermata.agents.factory.demo $(DEMO)

## test: lint, types, import rules, protos, deploy files, all tests, 500 simulated histories, the faults that those must find, and 10 rounds of chaos
test: check unit histories mutants
	$(BIN)/python -m pytest tests/integration tests/e2e $(PYTEST)
	$(BIN)/python -m pytest tests/chaos $(CHAOS)

## prove: the same at greater length: 10,000 histories, 100 rounds of chaos; goes on after a failure, to print them all
prove: $(VENV)/.dev
	@failed=0; \
	$(BIN)/python -m tests.simulation.run --seeds 0-9999 || failed=1; \
	$(BIN)/python -m pytest tests/chaos --rounds 100 $(CHAOS) || failed=1; \
	exit $$failed

## histories: the whole product in one loop that owns time, under faults; a seed that breaks a promise is printed and replays
histories: $(VENV)/.dev
	$(BIN)/python -m tests.simulation.run --seeds 0-499

## mutants: plant each fault of tests/mutants, and let the histories find it
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants.run

## chaos: kill and freeze real processes while runs are at work; CHAOS="--rounds 1 --seed 7" plays one round again
chaos: $(VENV)/.dev
	$(BIN)/python -m pytest tests/chaos $(CHAOS)

## unit: the fast tests only
unit: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit --numprocesses 2 $(PYTEST)

check: lint types imports protos deploy-lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

protos: $(VENV)/.dev
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python protos/generate.py --check

.PHONY: deploy-lint
deploy-lint: $(VENV)/.dev
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/python deploy/check_compose.py

## bench: one table of figures, with peers measured in the same run
bench: $(VENV)/.dev .peers/.installed
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

.peers/.installed: tests/benchmarks/peers/requirements.lock
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	@touch $@

## lock: pin again what pyproject.toml asks for
lock: $(VENV)/.dev
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate -q -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml -c requirements-dev.lock --universal --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate -q -o requirements.lock
	$(BIN)/uv pip compile tests/benchmarks/peers/requirements.in --universal --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate -q -o tests/benchmarks/peers/requirements.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fermata needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the pinned packages into $(VENV) (a few minutes the first time) ..."
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
