# Two commands: `make run` and `make test`. Both set up .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test lint types setup clean

setup: $(STAMP)

# Torch is named first and exactly: left alone, pip may choose a CPU-only 2.13 wheel that has no torchvision.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed (set PYTHON=/path/to/python3.11)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.14,<2.15" "torchvision>=0.29,<0.30"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(STAMP)

run: setup
	$(BIN)/cspedge run

# Two workers on two cores, whole files each; one OpenMP thread, since two on shared cores wait for each other. What
# starts, kills and times whole processes has the machine to itself afterwards.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
ALONE := tests/test_pipeline.py tests/test_package.py

test: setup
	$(PYTEST) -n 2 --dist loadfile --max-worker-restart=0 $(ALONE:%=--ignore=%)
	$(PYTEST) $(ALONE)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy --strict cspedge

clean:
	rm -rf .cspedge cspedge-out build dist
