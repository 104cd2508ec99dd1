# make demo   run the exporter against a simulated Tedee cloud
# make test   install the development environment and run all checks and tests
# make help   list the other targets

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# More workers than processors, because most tests wait for a child process or for Tedee's interval of 20 seconds.
WORKERS ?= 6
# tests/conftest.py sorts the files by their duration.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# The folders whose tests need neither a browser nor a container, Prometheus or Helm.
UNIT := $(addprefix tests/,api_errors correctness rate_limits serving simulator)
.DEFAULT_GOAL := help
.PHONY: help demo test lint words types unit soak bench dashboards pictures chart docs links dist lock lock-check clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 19

demo: $(VENV)/runtime ## run the exporter against a simulated Tedee cloud; ARGS="…" adds flags
	@exec $(BIN)/python -m exporter --demo $(ARGS)

test: lint types ## run all checks and tests
	$(PYTEST) --cov --cov-report=term:skip-covered

lint: words ## ruff, wording, and the layers of the modules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYTHONPATH=. $(BIN)/lint-imports --no-cache

words: $(VENV)/dev ## spelling and wording of text and commit subjects
	$(BIN)/python .ci/words.py

types: $(VENV)/dev ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/dev ## the tests without real parts, in a minute; ARGS="…" selects other tests or options
	$(PYTEST) $(or $(ARGS),$(UNIT))

soak: $(VENV)/dev ## tests that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m soak -s $(ARGS)

bench: $(VENV)/dev ## compare the exporter with its peers (25 minutes); ARGS="--only start,memory" measures parts
	$(BIN)/python -m bench $(ARGS)

dashboards: $(VENV)/dev ## generate the JSON of the dashboards
	$(BIN)/python -m dashboards.generator

pictures: $(VENV)/dev ## draw the dashboards, and the pictures of README and docs; needs Node.js and Chromium
	$(BIN)/python -m tests.dashboards.pictures $(ARGS)

chart: $(VENV)/dev ## copy alerts, dashboards and version into the chart, and generate the table in its README
	$(BIN)/python -m helm.refresh

docs: $(VENV)/dev ## build the documentation in docs/_build; a warning or a broken link fails
	$(BIN)/python -m sphinx -W --keep-going -n -q -b dirhtml docs docs/_build/html

links: $(VENV)/dev ## check the documentation's links to other sites
	$(BIN)/python -m sphinx -W --keep-going -n -q -b linkcheck docs docs/_build/links

dist: $(VENV)/dev ## build source archive and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

COMPILE := $(abspath $(BIN))/uv pip compile --universal --no-header --generate-hashes -q
# Compiles the lock files in the current folder. uv keeps locked versions and their hashes without --upgrade.
define COMPILE_LOCKS
$(COMPILE) $(1) pyproject.toml --extra postgresql -o requirements.lock && \
$(COMPILE) $(1) pyproject.toml --extra postgresql --extra dev -c requirements.lock -o requirements-dev.lock && \
$(COMPILE) --group build -c requirements-dev.lock -o requirements-build.lock
endef

lock: $(VENV)/dev ## update the lock files to the newest versions that pyproject.toml allows
	$(call COMPILE_LOCKS,--upgrade)

lock-check: $(VENV)/dev ## check that the lock files match pyproject.toml
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && cp pyproject.toml requirements*.lock "$$folder" && \
	cd "$$folder" && $(call COMPILE_LOCKS) && for file in *.lock; do diff -u "$(CURDIR)/$$file" "$$file" || \
		{ echo "$$file does not match pyproject.toml; update it with: make lock" >&2; exit 1; }; done

clean: ## remove the development environment and the output of builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is required; choose one with: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Setting up $(VENV), once. This takes a minute, and with the packages of the tests three."
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/runtime: $(VENV)/python requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/dev: $(VENV)/python requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/runtime
