# Two commands for newcomers: `make demo` and `make test`. The rest is for those who change things.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLACK_EMULATOR := tests/e2e/slack/node_modules/.package-lock.json
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test unit histories mutants chaos prove check lint types imports protos bench lock clean

## demo: install what is pinned, start everything, and play the factory story
demo: $(VENV)/.runtime
	@$(BIN)/python -m fermata.agents.factory.demo $(DEMO)

## demo-slack: the factory in a Slack that others have written, on this machine (Linux x64, npm); open the page that it names
.PHONY: demo-slack
demo-slack: $(VENV)/.runtime $(SLACK_EMULATOR)
	@$(BIN)/python -m fermata.agents.factory.demo.slack --emulator tests/e2e/slack/node_modules/local-slack-linux-x64/bin/local-slack \
		--preload tests/e2e/slack/loopback.ts $(DEMO)

## test: lint, types, import rules, protos, deploy files, all tests, 500 simulated histories, the faults that those must find, the model of the halt, and 10 rounds of chaos
test: check unit histories mutants slack-emulator
	$(BIN)/python -m pytest tests/model tests/integration tests/e2e $(PYTEST)
	$(BIN)/python -m pytest tests/chaos $(CHAOS)

## prove: the same at greater length: 10,000 histories, 1,000 real halts, 100 rounds of chaos; goes on after a failure, to print them all
prove: $(VENV)/.dev
	@failed=0; \
	$(BIN)/python -m tests.simulation.run --seeds 0-9999 || failed=1; \
	$(BIN)/python -m pytest tests/halts --rounds 1000 $(HALTS) || failed=1; \
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

## halts: halt real work at random instants, twenty at once; HALTS="--rounds 20 --seed 40" plays some again
.PHONY: halts
halts: $(VENV)/.dev
	$(BIN)/python -m pytest tests/halts $(HALTS)

## model: every interleaving of gate, latch, lease and host, checked by Spin (Debian's packages spin and gcc)
.PHONY: model
model: $(VENV)/.dev
	$(BIN)/python -m pytest tests/model

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

## slack-emulator: what the tests in a Slack workspace need, where npm is there (Linux x64)
.PHONY: slack-emulator
slack-emulator:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(SLACK_EMULATOR); \
	elif [ -n "$$REQUIRE_SLACK_EMULATOR" ]; then echo "npm is missing, and this run must try Slack"; exit 1; \
	else echo "npm is missing: the tests in a Slack workspace are skipped"; fi

$(SLACK_EMULATOR): tests/e2e/slack/package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --prefix tests/e2e/slack
	@touch $@

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
	rm -rf $(VENV) tests/e2e/slack/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
