# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input

# Tests mostly wait, so that two processes run them in little more than half the time; each has servers of its own. A module
# stays together: its tests share a session. TEST_WORKERS=0 runs all in one process, which a debugger wants.
TEST_WORKERS ?= 2
SPREAD := -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-long coverage test-latest test-lowest oracle lock dashboard-test chaos fuzz soak bench scale up down compose-test kubernetes-check lint format docs docs-links clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    run a real job in parallel on this machine (nothing else needed)"
	@echo "make test    lint and all tests, on real Redis and RabbitMQ servers"
	@echo "make test-long  tests that take long (4 minutes)"
	@echo "make coverage  how much of client and node the tests of their parts alone reach"
	@echo "make test-latest, make test-lowest  the tests with the newest, and the oldest admitted, versions of everything"
	@echo "make oracle  ask a real Ray, which goes into .bench/, whether our record of what it does is true"
	@echo "make lock    write the locked versions that make test uses into requirements/dev.txt anew"
	@echo "make dashboard-test  look at the pages of the dashboard in a real Chromium (3 minutes)"
	@echo "make chaos   kill servers, nodes and processes at work (10 minutes and more)"
	@echo "make fuzz    random programs on each engine, for FUZZ_MINUTES=10, and jobs, for FUZZ_JOB_MINUTES=4 (failures go to"
	@echo "             .fuzz/); FUZZ_ORDERS=10 times as many orders of threads and events as in make test"
	@echo "make soak    50,000 tasks and puts on each engine while executors are killed; shows what is kept (10 minutes)"
	@echo "             an hour each, with the memory of all processes: SOAK_ARGS=\"--minutes 60\""
	@echo "make compat  run Ray's own libraries and others on rabbitry and on Ray: RAY_VERSION=2.60.0"
	@echo "make ray-versions  what of Ray's libraries runs with which Ray: RAY_VERSIONS='2.48.0 2.60.0'"
	@echo "make bench   compare with Ray, which goes into .bench/"
	@echo "make scale   what tasks, calls, actors and idle nodes cost with 1 to 40 nodes: SCALE_ARGS=\"--nodes 1,100\""
	@echo "make up      start a cluster in containers: make up WORKERS=4 (again to scale it)"
	@echo "make down    stop it within some 20 seconds; its data stay in volumes"
	@echo "make compose-test  bring a cluster up, scale it and restart its servers while it works"
	@echo "make kubernetes-check  validate the manifests and the chart in deploy/"
	@echo "make docs    build the manual into docs/_build/html; its Python runs in make test"
	@echo "make lint    ruff, mypy, import-linter, vulture (dead code)"
	@echo "make format  let ruff format and repair"
	@echo "make clean   remove environments and caches"

demo: $(VENV)/runtime.stamp
	@$(BIN)/python -m rabbitry_broker.embedded_server
	@$(BIN)/python -m rabbitry.demo

# What cannot succeed fails here, before minutes go into an installation. $(BIN)/python refuses a wrong Python.
.PHONY: servers-possible
servers-possible: | $(BIN)/python
	@$(BIN)/python tools/test_servers.py --check

test: servers-possible
	@$(MAKE) --no-print-directory $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory lint & lint=$$!; \
	$(BIN)/python tools/test_servers.py $(BIN)/python -m pytest $(SPREAD) $(PYTEST_ARGS); code=$$?; \
	wait $$lint && exit $$code

# What waits for leases, drains and idle nodes again and again, and has a shorter sibling in `make test`.
test-long: $(VENV)/dev.stamp
	@$(BIN)/python tools/test_servers.py $(BIN)/python -m pytest $(SPREAD) -m long tests $(PYTEST_ARGS)

# Environments of their own, made anew each time: what is newest today was not so yesterday.
test-latest: RESOLUTION := highest
test-lowest: RESOLUTION := lowest-direct
test-latest test-lowest: servers-possible $(VENV)/uv.stamp
	@$(VENV)/uv/bin/uv venv --quiet --clear --seed --python $(PYTHON) $(VENV)/$@
	@$(VENV)/uv/bin/uv pip install --quiet --upgrade --resolution $(RESOLUTION) --python $(VENV)/$@/bin/python -e '.[dev]'
	@$(VENV)/$@/bin/python tools/test_servers.py $(VENV)/$@/bin/python -m pytest $(SPREAD) $(PYTEST_ARGS)

oracle: $(VENV)/dev.stamp
	@$(BIN)/python -c 'from benchmarks.systems import install_ray; install_ray()'
	@RABBITRY_ORACLE_PYTHON=$(CURDIR)/.bench/ray/bin/python $(BIN)/python -m pytest -m asks_ray tests/oracle $(PYTEST_ARGS)

# Pictures of all pages are left in the directory that RABBITRY_SCREENSHOTS names.
dashboard-test: $(VENV)/browser.stamp
	@$(BIN)/python tools/browser.py $(BIN)/python tools/test_servers.py $(BIN)/python -m pytest -m browser \
	  tests/workers/dashboard tests/end_to_end/test_dashboard_browser.py $(PYTEST_ARGS)

lock: $(VENV)/uv.stamp
	@$(VENV)/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt

# What the tests of the parts alone reach of the client and the node; processes that they start are not counted.
.PHONY: coverage
coverage: $(VENV)/dev.stamp
	@$(BIN)/python tools/test_servers.py $(BIN)/python -m pytest -q -p no:cacheprovider --durations=0 --durations-min=1 \
	  --cov=api/rabbitry --cov=workers/rabbitry_workers --cov-report=term:skip-covered tests/api tests/workers $(PYTEST_ARGS)

# Ray's own libraries and those of others on rabbitry, beside a real Ray: in environments of their own below .compat/, since
# their dependencies are many. One program: make compat COMPAT_ARGS="tune --engines ray,embedded"
RAY_VERSION ?= 2.60.0
.PHONY: compat
compat: $(VENV)/dev.stamp $(VENV)/uv.stamp
	@$(BIN)/python tools/test_servers.py $(BIN)/python -m compat.run \
	  --uv $(VENV)/uv/bin/uv --python $(PYTHON) --ray $(RAY_VERSION) $(COMPAT_ARGS)

# The same small job on several versions of Ray: RAY_VERSIONS="2.48.0 2.60.0"
.PHONY: ray-versions
ray-versions: $(VENV)/dev.stamp $(VENV)/uv.stamp
	@$(BIN)/python -m compat.versions --uv $(VENV)/uv/bin/uv --python $(PYTHON) $(RAY_VERSIONS)

bench: $(VENV)/bench.stamp
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

scale: $(VENV)/dev.stamp
	@PYTHONPATH=. $(BIN)/python tools/test_servers.py $(BIN)/python -m benchmarks.scale $(SCALE_ARGS)

chaos: $(VENV)/dev.stamp
	@RABBITRY_CHAOS_LONG=1 $(BIN)/python tools/test_servers.py $(BIN)/python -m pytest -m chaos tests/chaos tests/end_to_end/test_fairness.py $(PYTEST_ARGS)

FUZZ_MINUTES ?= 10
FUZZ_JOB_MINUTES ?= 4
FUZZ_ORDERS ?= 10

# New programs, new programs that submit jobs, new orders of threads and events; one that fails does not hide the others.
fuzz: $(VENV)/dev.stamp
	@code=0; export PYTHONPATH=.; \
	$(BIN)/python tools/test_servers.py $(BIN)/python -m tests.fuzz.run all --minutes $(FUZZ_MINUTES) $(FUZZ_ARGS) || code=1; \
	$(BIN)/python tools/test_servers.py $(BIN)/python -m tests.fuzz.jobs.run all --minutes $(FUZZ_JOB_MINUTES) || code=1; \
	FUZZ_ORDERS=$(FUZZ_ORDERS) FUZZ_FIRST_ORDER=$$(date +%s)000 $(BIN)/python -m pytest -q -p no:cacheprovider \
	  --timeout=0 tests/fuzz/interleavings || code=1; exit $$code

soak: $(VENV)/dev.stamp
	@PYTHONPATH=. $(BIN)/python tools/test_servers.py $(BIN)/python -m tests.end_to_end.soak $(SOAK_ARGS)

# Compose v2, or v1 where only that is there.
COMPOSE = $(shell docker compose version > /dev/null 2>&1 && echo docker compose || echo docker-compose)
WORKERS ?= 2

.PHONY: compose-there
compose-there:
	@$(COMPOSE) version > /dev/null 2>&1 || { \
	  echo "a cluster in containers needs Docker with Compose, and neither 'docker compose' nor docker-compose is here:" >&2; \
	  echo "see https://docs.docker.com/compose/install/, or start nodes without containers (docs/deployment.md)" >&2; \
	  exit 1; }

up: compose-there
	@$(PYTHON) tools/make_env.py
	@$(COMPOSE) up --build --detach --scale worker=$(WORKERS)
	@$(PYTHON) tools/how_to_connect.py $(WORKERS)

# What still runs after so long counts as crashed; a longer time lets it end: make down DOWN_SECONDS=90
DOWN_SECONDS ?= 10

down: compose-there
	@$(COMPOSE) down --timeout $(DOWN_SECONDS)

compose-test: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.compose.run --compose "$(COMPOSE)"

kubernetes-check: $(VENV)/kubernetes.stamp
	@$(VENV)/kubernetes/bin/kubernetes-validate --strict deploy/kubernetes/*.yaml
	@$(VENV)/kubernetes/bin/python tools/render_chart.py > $(VENV)/chart.yaml
	@$(VENV)/kubernetes/bin/python tools/render_chart.py --set autoscaling.enabled=false > $(VENV)/chart-fixed.yaml
	@$(VENV)/kubernetes/bin/kubernetes-validate --strict $(VENV)/chart.yaml $(VENV)/chart-fixed.yaml
	@if command -v helm > /dev/null; then helm lint --quiet deploy/helm/rabbitry \
	  && helm template rabbitry deploy/helm/rabbitry > $(VENV)/chart-helm.yaml \
	  && $(VENV)/kubernetes/bin/kubernetes-validate --strict $(VENV)/chart-helm.yaml; \
	  else echo "no helm here: the chart was rendered by tools/render_chart.py alone"; fi

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "ruff format would change files: run 'make format'" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log >&2; exit 1; }
	@! $(BIN)/vulture | grep -E '^(broker|api|workers)/' || { echo "remove what nothing uses, or say in tools/used_by_others.py who does" >&2; exit 1; }
	@echo "lint: ruff, mypy, import-linter and vulture found nothing"

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

# -W: a warning, such as a link that leads nowhere, is an error.
docs: $(VENV)/docs.stamp
	@$(VENV)/docs/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "the manual is at docs/_build/html/index.html"

docs-links: $(VENV)/docs.stamp
	@$(VENV)/docs/bin/python -m sphinx -q -b linkcheck docs docs/_build/links

clean:
	@rm -rf $(VENV) .bench .compat .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache docs/_build docs/generated

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2> /dev/null || { \
	  echo "rabbitry needs Python 3.10 to 3.13, and '$(PYTHON)' is $$($(PYTHON) --version 2> /dev/null || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The dev environment has all that the runtime one has: no second installation if it is up to date.
$(VENV)/runtime.stamp: pyproject.toml | $(BIN)/python
	@test $(VENV)/dev.stamp -nt pyproject.toml || { echo "installing rabbitry into $(VENV)" && $(PIP_INSTALL) -e .; }
	@touch $@

# Locked, with hashes: what was green stays green until somebody runs `make lock`. By uv, which takes a tenth of pip's
# time; by pip where uv cannot be had, or cannot reach an index that only pip is configured for.
$(VENV)/dev.stamp: pyproject.toml requirements/dev.txt | $(BIN)/python
	@echo "installing rabbitry and its development tools into $(VENV)"
	@{ $(MAKE) --no-print-directory $(VENV)/uv.stamp && $(VENV)/uv/bin/uv pip install --quiet --compile-bytecode \
	  --python $(BIN)/python --require-hashes -r requirements/dev.txt; } > /dev/null 2>&1 \
	  || $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/uv.stamp: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/uv
	@$(VENV)/uv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input uv
	@touch $@

$(VENV)/browser.stamp: $(VENV)/dev.stamp
	@echo "installing what drives a browser"
	@$(PIP_INSTALL) -e '.[browser]'
	@touch $@

# In a venv of its own: it brings the schemas of all versions of Kubernetes.
$(VENV)/kubernetes.stamp: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/kubernetes
	@$(VENV)/kubernetes/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input kubernetes-validate
	@touch $@

# In a venv of its own: what builds pages is no business of the tests.
$(VENV)/docs.stamp: pyproject.toml | $(BIN)/python
	@echo "installing what builds the manual"
	@$(PYTHON) -m venv $(VENV)/docs
	@$(VENV)/docs/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-input -e '.[docs,joblib]'
	@touch $@

$(VENV)/bench.stamp: pyproject.toml | $(BIN)/python
	@echo "installing rabbitry and its benchmark tools into $(VENV)"
	@$(PIP_INSTALL) -e '.[bench]'
	@touch $@
