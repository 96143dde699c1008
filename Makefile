# Each target does its own set-up. `make run` is the main job; see README.md.
PYTHON ?= python3.11
CORES ?= 2
CONFIG ?= configs/default.yaml
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: install run test lint docs ui clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "obert needs Python 3.11 to 3.13; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: install
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(BIN)/python -m obert summary --config $(CONFIG)

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

docs: install
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

ui: install
	@echo "MLflow's UI: http://127.0.0.1:5000 (Ctrl-C stops it)"
	$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///results/tracking/mlflow.db

clean:
	rm -rf .snakemake docs/_build results/runs results/sweeps results/checkpoints results/logs results/benchmarks
