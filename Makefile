# `make demo` and `make test` are all a newcomer needs; everything below serves those two.
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SCRIPT := examples/javascript
# npm's own mark of a finished installation; only where there is an npm.
PACKAGES := $(if $(shell command -v npm 2>/dev/null),$(SCRIPT)/node_modules/.package-lock.json)
# Those that the tests have passed on come first; PYTHON=… names another one.
PYTHON ?= python3.11 python3.12 python3.13 python3 python
SEEDS  ?= 20000
FIRST  ?= 100000

.DEFAULT_GOAL := help
.PHONY: help setup demo bench-core test lint types unit simulate faults protos buf dashboards stack compose-check docs site fuzz lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY) $(PACKAGES) ## Make the virtual environment, and the JavaScript example's packages, from locks

# An environment holds absolute paths: one whose checkout has moved, or whose Python has gone, is made anew.
$(shell test -x $(BIN)/python && test "$$(cat $(READY) 2>&1)" = "$$(pwd)" || rm -f $(READY))

# The mark is removed first, so that what an interruption leaves behind is made anew, too.
$(READY): requirements-dev.lock pyproject.toml hatch_build.py service/connect_actor/observe/_allocation_hook.c service/connect_actor/protocol/_message_step.c
	@echo "==> virtual environment in $(VENV) (once)"
	@test -e $@ || rm -rf $(VENV)
	@rm -f $@
	@test -e $(VENV) || for python in $(PYTHON); do \
	    "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && exec "$$python" -m venv $(VENV); done; \
	    test -e $(VENV) || { echo "needs Python 3.11 or later with venv and pip: apt install python3-venv (Debian 12," \
	    "Ubuntu 24.04 or later), or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@pwd > $@

# Without a registry the tests of the example are skipped, and say so. The packages' own scripts don't run.
$(SCRIPT)/node_modules/.package-lock.json: $(SCRIPT)/package-lock.json
	@echo "==> npm packages in $(SCRIPT)/node_modules (once)"
	@npm ci --prefix $(SCRIPT) --ignore-scripts --fetch-retries=1 --no-audit --no-fund --silent && touch $@ \
	    || echo "npm ci failed: the JavaScript example is not tested" >&2

demo: $(READY) ## Compare full, cached and differential under the same real load
	@$(BIN)/loadgen compare --quick --output results/demo

bench-core: $(READY) ## Measure protocol, journal, actors and the whole beside their peers
	@for part in protocol journal actors peers; do $(BIN)/python -m benchmarks.$$part --rounds 3 || exit 1; done

test: lint types unit ## Lint, types and tests: all that CI runs

lint: $(READY)
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@echo "==> mypy --strict"
	@$(BIN)/mypy

unit: $(READY) $(PACKAGES)
	@echo "==> pytest"
	@$(BIN)/pytest -n 2

simulate: $(READY) ## Run SEEDS schedules of the simulation from seed FIRST on
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

faults: $(READY) ## Try far more faults and crash images than the tests do
	@FAULTS=thorough $(BIN)/pytest tests/faults -rxXP --show-capture=stdout

protos: $(READY) ## Generate the protobuf modules anew
	@$(BIN)/python protos/generate.py

BASE ?= main

buf: ## Lint the proto files, and compare them with those of the branch BASE (needs Node)
	@npx --yes @bufbuild/buf@1.75.0 lint protos
	@npx --yes @bufbuild/buf@1.75.0 breaking protos --against '.git#ref=$(BASE),subdir=protos'

dashboards: $(READY) ## Generate the Grafana dashboards anew
	@$(BIN)/python -m grafana.dashboards.generate

stack: $(READY) ## Run services, load and Prometheus without Docker, until Ctrl-C
	@$(BIN)/python -m grafana.local

compose-check: $(READY) ## Hold the compose stack to its promises, on a real Docker engine
	@$(BIN)/python -m tests.images.compose_check

docs: $(READY) ## Write the generated pages of the reference anew
	@$(BIN)/python -m tests.docs.reference

site: $(READY) ## Build the documents as a website, in site/ (installs MkDocs once)
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -q -r docs/requirements.txt
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q

INPUTS ?= 100000
SEED   ?= 1

fuzz: $(READY) ## Try INPUTS mutations of SEED on each parser and RPC
	@$(BIN)/python -m tests.fuzz all --inputs $(INPUTS) --seed $(SEED)

lock: ## Resolve the dependencies anew (needs uv)
	@uv pip compile -q --upgrade --python-version 3.11 --generate-hashes --extra loadgen pyproject.toml -o requirements.lock
	@uv pip compile -q --python-version 3.11 --generate-hashes --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	@uv pip compile -q --python-version 3.11 --generate-hashes --group build -c requirements-dev.lock -o requirements-build.lock

clean: ## Remove what the targets above have made
	@rm -rf $(VENV) results site .cache $(SCRIPT)/node_modules
