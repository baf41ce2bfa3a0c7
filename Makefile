# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input

.PHONY: help demo test chaos soak bench up down compose-test kubernetes-check lint format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    run a real job in parallel on this machine (nothing else needed)"
	@echo "make test    lint, then all tests on real Redis and RabbitMQ servers"
	@echo "make chaos   kill servers, nodes and processes at work (10 minutes and more)"
	@echo "make soak    50,000 tasks and puts on each engine while executors are killed; shows what is kept (10 minutes)"
	@echo "make bench   compare with Ray, which goes into .bench/"
	@echo "make up      start a cluster in containers: make up WORKERS=4 (again to scale it)"
	@echo "make down    stop it; its data stay in volumes"
	@echo "make compose-test  bring a cluster up, scale it and restart its servers while it works"
	@echo "make kubernetes-check  validate the manifests in deploy/kubernetes"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make format  let ruff format and repair"
	@echo "make clean   remove environments and caches"

demo: $(VENV)/runtime.stamp
	@$(BIN)/python examples/stdlib_census.py

test: lint
	@$(BIN)/python tools/test_servers.py $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/bench.stamp
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

chaos: $(VENV)/dev.stamp
	@WARREN_CHAOS_LONG=1 $(BIN)/python tools/test_servers.py $(BIN)/python -m pytest -m chaos tests/chaos $(PYTEST_ARGS)

soak: $(VENV)/dev.stamp
	@PYTHONPATH=. $(BIN)/python tools/test_servers.py $(BIN)/python -m tests.end_to_end.soak $(SOAK_ARGS)

# Compose v2, or v1 where only that is there.
COMPOSE = $(shell docker compose version > /dev/null 2>&1 && echo docker compose || echo docker-compose)
WORKERS ?= 2

up:
	@$(PYTHON) tools/make_env.py
	@$(COMPOSE) up --build --detach --scale worker=$(WORKERS)

down:
	@$(COMPOSE) down

compose-test: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.compose.run --compose "$(COMPOSE)"

kubernetes-check: $(VENV)/kubernetes.stamp
	@$(VENV)/kubernetes/bin/kubernetes-validate --strict deploy/kubernetes/*.yaml

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "ruff format would change files: run 'make format'" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log >&2; exit 1; }
	@echo "lint: ruff, mypy and import-linter found nothing"

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

clean:
	@rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2> /dev/null || { \
	  echo "warren needs Python 3.10 to 3.13, and '$(PYTHON)' is $$($(PYTHON) --version 2> /dev/null || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The dev environment has all that the runtime one has: no second installation if it is up to date.
$(VENV)/runtime.stamp: pyproject.toml | $(BIN)/python
	@test $(VENV)/dev.stamp -nt pyproject.toml || { echo "installing warren into $(VENV)" && $(PIP_INSTALL) -e .; }
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	@echo "installing warren and its development tools into $(VENV)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@

# In a venv of its own: it brings the schemas of all versions of Kubernetes.
$(VENV)/kubernetes.stamp: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/kubernetes
	@$(VENV)/kubernetes/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input kubernetes-validate
	@touch $@

$(VENV)/bench.stamp: pyproject.toml | $(BIN)/python
	@echo "installing warren and its benchmark tools into $(VENV)"
	@$(PIP_INSTALL) -e '.[bench]'
	@touch $@
