# Each target does its own set-up. `make run` is the main job; see README.md.
PYTHON ?= python3.11
CORES ?= 2
CONFIG ?= configs/default.yaml
TORCH ?= auto
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: install run test newest lint docs ui clean FORCE

install: $(VENV)/installed

# TORCH=cpu|cuda|index chooses PyTorch's wheels: cpu where there is no NVIDIA GPU, else index, by default.
ifneq ($(filter-out auto $(shell cat $(VENV)/installed 2>/dev/null),$(TORCH)),)
$(VENV)/installed: FORCE
endif

$(VENV)/installed: pyproject.toml constraints.txt workflow/envs/install.py
	@$(PYTHON) workflow/envs/install.py $(VENV) --torch $(TORCH)

run: install
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(BIN)/python -m obert summary --config $(CONFIG)

# A worker for each core, a file's tests in one of them, and files in the order of tests/conftest.py. A worker takes 2 GB.
test: install
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# The newest versions that pyproject.toml allows, in an environment of their own.
newest:
	PYTHON=$(PYTHON) .ci/newest

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
