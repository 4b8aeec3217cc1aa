# Each target needs only Python 3.10 or newer and creates its own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# constraints.txt pins every dependency, so that each machine installs the versions that CI tested. It has no hashes: with
# hashes, pip refuses the editable install of LMVP, and CPU builds of torch whose files differ from those of the index.
PIP := $(BIN)/python tools/pip_progress.py -c constraints.txt
FLOOR := 90
JOBS ?= auto
TORCH := 2.13.0
# Tests of the repository that make an environment, build a wheel or run all blocks of the pages.
SLOW_PAGES := test_readme test_quickstart test_wheel
LABEXTENSION := $(VENV)/share/jupyter/labextensions/lmvp
LOCKED := dev docs demo lightning transformers gpu bench audit

.PHONY: help demo check test coverage shuffle soak lab lint docs fix browser bench screenshots wheel lock audit licences clean
help:
	@echo "make demo | check | test | coverage | shuffle | soak | lab | lint | docs | fix | browser | bench | screenshots | wheel | lock | audit | licences | clean"

$(VENV)/.made:
	@echo "making an environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "LMVP needs Python 3.10 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.made setup.cfg pyproject.toml constraints.txt
	@$(PIP) -e '.[demo]'
	@touch $@

# Torch and a browser make more tests run; where they cannot be had, those are skipped and say why.
$(VENV)/.test: $(VENV)/.made setup.cfg pyproject.toml constraints.txt
	$(PIP) 'torch==$(TORCH)' || echo "no torch here: its tests will be skipped"
	$(PIP) -e '.[dev]'
	! $(BIN)/python -c 'import torch' || $(PIP) -e '.[lightning,transformers]' || echo "no Lightning, no Transformers: their tests will be skipped"
	@sh tools/chromium.sh
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python tools/demo.py

# Editable installs put no data files into the environment: neither the configuration of the Jupyter server nor the tile.
# The notebook is a copy, and LMVP_HOME is a folder of its own: the checkout and the user's own models stay unchanged.
lab: $(VENV)/.demo
	$(BIN)/jupyter server extension enable lmvp_jupyter --sys-prefix >/dev/null 2>&1
	@mkdir -p $(LABEXTENSION)/static
	@cp lmvp_jupyter/labextension/*.json $(LABEXTENSION)/
	@cp lmvp_jupyter/labextension/static/* $(LABEXTENSION)/static/
	@mkdir -p build/lab
	@test -e build/lab/quickstart.ipynb || cp examples/quickstart.ipynb build/lab/
	@echo "the notebook is a copy, build/lab/quickstart.ipynb; its models are in build/lab/home (make clean deletes both)"
	LMVP_HOME=$(CURDIR)/build/lab/home $(BIN)/jupyter lab build/lab/quickstart.ipynb

# Everything but the long matrices of `make soak`; `lint` comes first, so that a mistake of style fails at once.
test: lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20

# The loop of development: the tests without a server, and those with a server in a thread of the test process.
check: lint
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20 \
		tests/unit tests/api $(wildcard tests/test_*.py) $(SLOW_PAGES:%=--ignore=tests/%.py) lmvp lmvp_server lmvp_jupyter

# The same tests, and the share of lines that they run. Tracing the lines needs half as much processor time again.
coverage: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='lmvp/*,lmvp_server/*' --fail-under=$(FLOOR)

# The same tests in a random order; the order is that of a seed, which pytest prints: `make shuffle SEED=17` repeats it.
shuffle: $(VENV)/.test
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations 20 -p randomly $(SEED:%=--randomly-seed=%)

# The tests that repeat an action many times, at full size; `make test` runs the same tests at a small size.
soak: $(VENV)/.test
	LMVP_KILLS=200 LMVP_FUZZ=100000 LMVP_FLIPS=5000 LMVP_SIGNALS=1000 LMVP_FINISHES=100 LMVP_RENDERED=1000 \
	LMVP_LIES=1 $(BIN)/pytest -m soak -n $(JOBS) --dist loadfile --timeout 14400

browser: $(VENV)/.test
	$(BIN)/pytest -m browser tests/browser

lint: $(VENV)/.test $(VENV)/.docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python tools/prose.py --baseline tools/prose_baseline.json
	$(BIN)/mypy
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

fix: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/prose.py --baseline tools/prose_baseline.json --update

bench: $(VENV)/.test
	$(PIP) -e '.[bench]' || echo "no TensorBoard here: nothing beside log()"
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.test
	$(PIP) pillow
	$(BIN)/python tools/screenshots.py
	$(BIN)/python tools/console_pictures.py build/screenshots

$(VENV)/.docs: $(VENV)/.test
	$(PIP) -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

# Write the wheel, the sdist and the SBOM to dist/. The same commit gives the same bytes.
wheel: $(VENV)/.test
	$(BIN)/python tools/build_wheel.py dist

$(VENV)/.audit: $(VENV)/.made setup.cfg pyproject.toml constraints.txt
	$(PIP) -e '.[audit]'
	@touch $@

# Resolve the dependencies for all Pythons and systems at once. Pins that still fit are kept: `make lock UPGRADE=--upgrade`
# takes the newest releases. Torch keeps the version that the target `test` installs.
lock: $(VENV)/.audit
	echo 'torch==$(TORCH)' | $(BIN)/uv pip compile setup.cfg --constraint - --universal --python-version 3.10 $(UPGRADE) \
		$(LOCKED:%=--extra %) --no-emit-package lmvp --no-annotate --custom-compile-command 'make lock' --quiet -o constraints.txt

# Compare the pins with the published advisories. --strict: a package that cannot be looked up is a failure, not a pass.
audit: $(VENV)/.audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

licences: $(VENV)/.test
	$(BIN)/python tools/licences.py docs/licences.md

clean:
	rm -rf $(VENV) .demo build/lab dist .coverage* .mypy_cache .pytest_cache .ruff_cache
