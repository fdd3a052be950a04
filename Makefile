# Everything from a fresh clone: only Python 3.11 or newer and make are needed.
#   make demo PYTHON=python3.12 PIP_FLAGS="--quiet"

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Two processes of one thread each are faster than one process of two.
WORKERS ?= 2
TESTS ?= -m "not slow"

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types docs check wheel nano clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1|/' \
		| awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## train the embedded model on a judge's taste and write a report
	$(BIN)/tastemaker run demo

test: $(VENV)/.installed-dev  ## tests and doctests but slow ones; TESTS="-m slow", or a file, for others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

lint: $(VENV)/.installed-dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev  ## mypy --strict on src
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## the documentation as a site, in build/site; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

check: lint types test  ## lint, types and tests

wheel: $(VENV)/.installed-dev  ## build dist/tastemaker-*.whl
	$(BIN)/python -m build --wheel

nano: $(VENV)/.installed-nano  ## rebuild the embedded model and its scorers (hours on two cores)
	$(BIN)/python -m tastemaker.nano.build --work build/nano

clean:  ## remove the environment and what builds leave; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Tastemaker needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp a set of extras, so that the installation is done once, and again when its inputs change.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-nano: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[nano]'
	@touch $@ $(VENV)/.installed
