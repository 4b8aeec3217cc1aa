# What there is to do here, each from nothing but Python 3.10 or newer: it makes its own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOOR := 90
JOBS ?= auto

.PHONY: help demo test soak lab lint fix browser bench screenshots clean
help:
	@echo "make demo | test | soak | lab | lint | fix | browser | bench | screenshots | clean"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "LMVP needs Python 3.10 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.made setup.cfg pyproject.toml
	$(BIN)/pip install --quiet -e '.[demo]'
	@touch $@

# Torch and a browser make more tests run; where they cannot be had, those are skipped and say why.
$(VENV)/.test: $(VENV)/.made setup.cfg pyproject.toml
	$(BIN)/pip install --quiet 'torch==2.13.0' || echo "no torch here: its tests will be skipped"
	$(BIN)/pip install --quiet -e '.[dev]'
	! $(BIN)/python -c 'import torch' || $(BIN)/pip install --quiet -e '.[lightning,transformers]' || echo "no Lightning, no Transformers: their tests will be skipped"
	@sh tools/chromium.sh
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python tools/demo.py

lab: $(VENV)/.demo
	$(BIN)/jupyter server extension enable lmvp_jupyter --sys-prefix >/dev/null 2>&1
	$(BIN)/jupyter lab examples/quickstart.ipynb

test: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='lmvp/*,lmvp_server/*' --fail-under=$(FLOOR)

# The tests that repeat an action many times, at full size; `make test` runs the same tests at a small size.
soak: $(VENV)/.test
	LMVP_KILLS=200 LMVP_FUZZ=100000 LMVP_FLIPS=5000 $(BIN)/pytest -m soak -n $(JOBS) --dist loadfile --timeout 14400

browser: $(VENV)/.test
	$(BIN)/pytest -m browser tests/browser

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	$(BIN)/pip install --quiet -e '.[bench]' || echo "no TensorBoard here: nothing beside log()"
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.test
	$(BIN)/pip install --quiet pillow
	$(BIN)/python tools/screenshots.py
	$(BIN)/python tools/console_pictures.py build/screenshots

clean:
	rm -rf $(VENV) .demo .coverage* .mypy_cache .pytest_cache .ruff_cache
