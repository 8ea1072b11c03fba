# VENV: the virtual environment's folder. PYTHON: the interpreter (3.11 or newer) that makes it. ARGS: what follows the command.
# PHOTOS: where make photos puts the HQ training set.
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
PHOTOS ?= photos

INSTALL = VENV="$(VENV)" PYTHON="$(PYTHON)" tools/install.sh
INSTALLED_BY = pyproject.toml setup.py tools/install.sh constraints/cpu.txt constraints/gpu.txt
BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: help run test test-all lint types photos benchmark benchmark-gpu clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: VENV=$(VENV) PYTHON=$(PYTHON) PHOTOS=$(PHOTOS) ARGS=$(ARGS) (ARGS follows the command, as in make run ARGS=seed=1)"

run: $(VENV)/.installed-run ## train the four arms of the paper's Table 3 on the embedded photos, write the comparison
	$(BIN)/python -m osediff_exp +experiment=vsd_ablation $(ARGS)

test: $(VENV)/.installed-dev ## run the fast tests
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/.installed-dev ## run every test
	$(PYTEST) $(ARGS)

lint: $(VENV)/.installed-dev ## check style, formatting and the direction of imports
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev ## check types
	$(BIN)/python -m mypy

photos: $(VENV)/.installed-run ## build the HQ training set from Debian packages of free photos (needs apt-get and dpkg-deb)
	$(BIN)/python tools/make_photos.py "$(PHOTOS)" $(ARGS)

benchmark: $(VENV)/.installed-run ## measure data, training step, restoring, scoring, start-up beside plain ways
	$(BIN)/python -m osediff_exp task=benchmark $(ARGS)

benchmark-gpu: $(VENV)/.installed-run ## Stable Diffusion 2.1's size with random weights on a GPU: step, memory, restoring
	$(BIN)/python -m osediff_exp task=benchmark benchmark.parts=[real_size] benchmark.real_size.batch_sizes=[1,2,4] \
	  benchmark.real_size.checkpointing=[true,false] benchmark.real_size.compile=true $(ARGS)

clean: ## remove caches and build folders; the environment and runs/ stay
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find osediff_exp tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-run: $(INSTALLED_BY)
	$(INSTALL)

$(VENV)/.installed-dev: $(INSTALLED_BY)
	$(INSTALL) dev
