# `make study` runs the embedded study, `make test` the tests. Both set themselves up first; nothing else is needed but
# Python >= 3.11 and make.

PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup study audit test test-audit test-fast test-faults test-slurm lint docs clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install ffnfold and the tested versions of its libraries

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ffnfold needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.12"; exit 1; }
	@echo "ffnfold: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "ffnfold: installing the libraries named in constraints.txt (some minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[parity,slurm,test]"
	@touch $@
	@echo "ffnfold: ready. Activate it with: source $(BIN)/activate"

study: setup ## run the embedded study and name the report
	@echo "ffnfold: running the study 'mini' on $(CORES) cores (CORES=n for another number)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --quiet rules reason --config study=mini -- all
	@echo
	@echo "ffnfold: done. Open results/mini/report/index.html"

audit: setup ## run the audit of the published figures on the embedded study, and name its page
	@echo "ffnfold: auditing the published figures on the study 'mini', $(CORES) cores"
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --quiet rules reason --config study=mini -- audit
	@echo
	@echo "ffnfold: done. Open results/mini/audit/index.html"

test: setup ## run all tests
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: setup ## run the unit tests only
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit

test-faults: setup ## kill, starve and fill up whole runs (30 kills: about ten minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -s

test-audit: audit ## check that the audit shows what each artefact does
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/audit -s

test-slurm: setup ## run a study on a SLURM of one node (Debian; installs it as root where it is missing)
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm -s

lint: setup ## check style: ruff, snakemake --lint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

docs: setup ## write config/README.md anew from the schema
	@$(BIN)/python -m ffnfold.documentation

clean: ## remove results and Snakemake's state, keep .venv
	rm -rf results .snakemake report.html
