# Every target makes its own virtual environment from plain Python 3.11+ and reuses it while nothing changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed
DEMO ?= demo
EXTRAS ?= train,slurm,dev
# An index with other builds of PyTorch; pytorch.org names one without CUDA, which is smaller.
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# Where the user has no home folder, caches of pip and of libraries go into the virtual environment.
HOME ?= $(abspath $(VENV))
export HOME

.PHONY: help install demo docs test test-slow lint format clean

help:
	@echo "make demo       install, then splits -> training -> leaderboard on the embedded shapes data set, into $(DEMO)/"
	@echo "make test       install, then ruff, mypy, import-linter and the tests"
	@echo "make test-slow  the tests that train for minutes"
	@echo "make docs       install mkdocs, make the tables in docs/ anew, and build the site into site/, strictly"
	@echo "make lint       ruff, mypy and import-linter only"
	@echo "make format     ruff format and the fixes that ruff can make itself"
	@echo "make clean      remove the virtual environment, the demo folder and caches"

install: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("cissod-bench needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[$(EXTRAS)]'
	@# Two distributions of OpenCV share a folder; the headless one, put there last, needs no libGL.
	$(PIP_INSTALL) --no-deps --force-reinstall opencv-python-headless
	@# All cores compile at once, where pip takes one; templates in torch are no Python, which pip does not mind either.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

# Neither PyTorch nor mmdet: pages and tables are made from sources and records.
$(DOCS_INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

docs: $(DOCS_INSTALLED)
	$(BIN)/python docs/scripts/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

demo: $(INSTALLED)
	$(BIN)/cissod-bench make-splits --task shapes --out $(DEMO)/split
	$(BIN)/cissod-bench sweep examples/demo.toml --jobs 2 --split $(DEMO)/split --out $(DEMO)/runs
	$(BIN)/cissod-bench report $(DEMO)/runs --out $(DEMO)/report --overwrite

clean:
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
