# Two commands on a bare machine:
#   make demo   sets everything up, makes a song, and takes it apart
#   make test   sets everything up and passes the tests
# Both need Python 3.10 or newer, and may be run again.

PYTHON ?= python3
# The version that every figure was measured with. Any torch from 2.5 on will do: make demo TORCH="torch>=2.5"
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-long bench-reaper lint lint-lua format clean

demo: $(VENV)/.installed
	$(BIN)/tsbs-daw demo --out out/demo

test: lint
	$(BIN)/python -m pytest -q

# Every fault case as often as the reliability table says: hours.
test-long: $(VENV)/.installed-for-tests
	$(BIN)/python -m pytest -q -m long --timeout 0

# From an action in REAPER to the tracks, with the real scripts and daemon. ARGUMENTS="--json --runs 3"
bench-reaper: $(VENV)/.installed-for-tests
	@PYTHONPATH=tests $(BIN)/python -m reaper.bench $(ARGUMENTS)

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The scripts for REAPER and Ardour. Needs luacheck (Debian: lua-check) and npm.
lint-lua:
	luacheck -q --config reaper_scripts/.luacheckrc reaper_scripts
	luacheck -q --config tsbs_daw/integrations/ardour/.luacheckrc tsbs_daw/integrations/ardour tests/ardour
	npm install --silent --no-audit --no-fund --prefix build/stylua @johnnymorganz/stylua-bin@2.5.2
	build/stylua/node_modules/.bin/stylua --check --config-path reaper_scripts/stylua.toml reaper_scripts

format: $(VENV)/.installed-for-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "tsbs-daw needs Python 3.10 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	$(PIP) install --editable ".[test]"
	@touch $@
