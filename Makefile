# Two commands on a bare machine:
#   make demo   sets everything up, makes a song, and separates it
#   make test   sets everything up and runs every check and test
# Both need Python 3.10 or newer and can be run again. `make help` lists the rest.

PYTHON ?= python3
# The versions that every figure was measured with. Any torch from 2.5 on works: make demo LOCK=
LOCK ?= .ci/constraints.txt

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := $(if $(LOCK),--constraint $(LOCK))

# What `make check` runs of the suite: everything that is quick.
QUICK := tests/test_layers.py tests/core tests/contracts tests/presets tests/queue tests/sessions tests/docs tests/cli/test_help.py

# Tests of what a user may not read or write.
PERMISSIONS := tests/core tests/queue/test_locks.py tests/pipeline/test_publish.py tests/cli/test_failures.py \
  tests/watch/test_scan.py tests/batch/test_scan.py tests/reaper/test_bad_input.py

.PHONY: help demo test test-as-user test-long check lint types docs wheel lock bench-reaper pictures-reaper lint-lua format clean \
  shape

help: ## List these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## Make a song, separate it, and show the result
	$(BIN)/tsbs-daw demo --out out/demo

# One thread for each of two processes beats one process with two: torch has little to share in models this small.
test: lint ## Run the linters and the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=25

check: lint types ## Run the linters, mypy and the quick tests: under two minutes
	$(BIN)/python -m pytest -q $(QUICK)

# Root may do everything; TESTS="tests/core tests/queue" names others than those that are about permissions.
test-as-user: $(VENV)/.installed-for-tests ## Run the tests of permissions as nobody, where this is root
	OMP_NUM_THREADS=1 $(BIN)/python tools/as_user.py $(or $(TESTS),$(PERMISSIONS))

# PART=3 runs one of six parts, an hour at most; stopped or not, the same call resumes it.
test-long: $(VENV)/.installed-for-tests ## Run every fault case as often as docs/reliability.md says: hours; PART=1 to 6
	$(BIN)/python tools/long_form.py $(if $(PART),--part $(PART)) $(ARGUMENTS)

# ARGUMENTS="--json --runs 3"
bench-reaper: $(VENV)/.installed-for-tests ## Time the way from an action in REAPER to its tracks
	@PYTHONPATH=tests $(BIN)/python -m reaper.bench $(ARGUMENTS)

pictures-reaper: $(VENV)/.installed-for-tests ## Draw every dialog of REAPER's scripts into build/reaper
	PYTHONPATH=tests $(BIN)/python -m reaper.pictures build/reaper

shape: ## Count modules, long files, and the files that a job passes
	@$(PYTHON) tools/shape.py

lint: $(VENV)/.installed-for-tests ## Run ruff and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed-for-tests ## Run mypy
	$(BIN)/mypy

docs: $(VENV)/.installed-for-tests ## Build the documentation into build/site; a broken link is an error
	$(BIN)/mkdocs build --quiet --strict

wheel: $(VENV)/.installed-for-tests ## Build the wheel, and try it alone in an empty environment
	$(BIN)/python tools/try_wheel.py $(LOCKED)

lock: $(VENV)/.installed-for-tests ## Compute .ci/constraints.txt anew, for every Python and system at once
	$(PIP) install uv
	echo "torch==2.13.0" | $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 \
	  --constraint - --upgrade --no-annotate --no-header --no-emit-index-url --no-emit-find-links --output-file $(LOCK)

# Needs luacheck (Debian: lua-check) and npm.
lint-lua: ## Check the Lua scripts for REAPER and Ardour
	luacheck -q --config reaper_scripts/.luacheckrc reaper_scripts
	luacheck -q --config tsbs_daw/integrations/ardour_scripts/.luacheckrc tsbs_daw/integrations/ardour_scripts tests/ardour
	npm install --silent --no-audit --no-fund --prefix build/stylua @johnnymorganz/stylua-bin@2.5.2
	build/stylua/node_modules/.bin/stylua --check --config-path reaper_scripts/stylua.toml reaper_scripts

format: $(VENV)/.installed-for-tests ## Let ruff fix and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything that these commands make
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(VENV)/.installed: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "tsbs-daw needs Python 3.10 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install $(LOCKED) --editable .
	@touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	$(PIP) install $(LOCKED) --editable ".[dev]"
	@touch $@
