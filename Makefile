# make demo   runs the exporter against an embedded simulated Tedee cloud
# make test   sets up what the tests need and runs all of them
# make help   lists the rest

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Most tests wait for a child process or a clock of 20 seconds, not for a processor.
WORKERS ?= 6
.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit soak bench dashboards chart docs links audit dist lock clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(VENV)/runtime ## run the exporter against a simulated Tedee cloud; ARGS="…" adds flags
	@exec $(BIN)/python -m exporter --demo $(ARGS)

test: lint types unit ## run all checks and tests

lint: $(VENV)/dev ## ruff, and the arrows between the modules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYTHONPATH=. $(BIN)/lint-imports --no-cache

types: $(VENV)/dev ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/dev ## pytest; ARGS="…" adds options
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

soak: $(VENV)/dev ## the tests that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m soak -s $(ARGS)

bench: $(VENV)/dev $(VENV)/users/python ## measure it beside its peers, for half an hour, and write docs/performance.md
	EXPORTER_PYTHON=$(VENV)/users/bin/python $(BIN)/python -m bench $(ARGS)

dashboards: $(VENV)/dev ## write the dashboards' JSON from their code
	$(BIN)/python -m dashboards.generator

chart: $(VENV)/dev ## copy alerts, dashboards and the version into the chart, and make its README's table
	$(BIN)/python -m helm.refresh

docs: $(VENV)/dev ## build the documentation in docs/_build; a warning or a broken link fails
	$(BIN)/python -m sphinx -W --keep-going -n -q -b dirhtml docs docs/_build/html

links: $(VENV)/dev ## check the documentation's links to other sites
	$(BIN)/python -m sphinx -W --keep-going -n -q -b linkcheck docs docs/_build/links

audit: $(VENV)/dev ## what the lock files pin, against the package index
	$(BIN)/python .ci/audit.py

dist: $(VENV)/dev ## the source archive and the wheel that are released, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

lock: $(VENV)/dev ## bring the lock files up to date with pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header -q --upgrade -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header -q --upgrade \
		-c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --group build --universal --generate-hashes --no-header -q -c requirements-dev.lock \
		-o requirements-build.lock

clean: ## remove what was set up
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/runtime: $(VENV)/python requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# As its users have it. Some libraries import what they find beside them.
$(VENV)/users/python: $(VENV)/python requirements.lock
	$(BIN)/python -m venv $(VENV)/users
	$(VENV)/users/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/dev: $(VENV)/python requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/runtime
