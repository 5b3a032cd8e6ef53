# Two commands: `make run` and `make test`. Both set up .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# mmpretrain's real modules, which the tests compare with: an environment of its own that shares the rest of $(VENV).
MMPRETRAIN := .venv-mmpretrain
MMPRETRAIN_NEEDS := tests/models/mmpretrain-requirements.txt

.PHONY: run test lint types setup mmpretrain clean

setup: $(STAMP)

# Torch is named first and exactly: left alone, pip may choose a CPU-only 2.13 wheel that has no torchvision.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed (set PYTHON=/path/to/python3.11)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.14,<2.15" "torchvision>=0.29,<0.30"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(STAMP)

mmpretrain: $(MMPRETRAIN)/.installed

# The .pth file comes last: what pip installs must not find, and so never touches, what is shared.
$(MMPRETRAIN)/.installed: $(MMPRETRAIN_NEEDS) | $(STAMP)
	rm -rf $(MMPRETRAIN)
	$(BIN)/python -m venv --without-pip $(MMPRETRAIN)
	$(BIN)/python -m pip --python $(MMPRETRAIN)/bin/python install --quiet --disable-pip-version-check --no-deps \
		-r $(MMPRETRAIN_NEEDS)
	site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		$(BIN)/python -c "$$site" > "$$($(MMPRETRAIN)/bin/python -c "$$site")/shared.pth"
	@touch $@

run: setup
	$(BIN)/cspedge run

# Two workers on two cores, whole files each; one OpenMP thread, since two on shared cores wait for each other. What
# starts, kills and times whole processes has the machine to itself afterwards.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
ALONE := tests/test_pipeline.py tests/test_package.py

test: setup mmpretrain
	$(PYTEST) -n 2 --dist loadfile --max-worker-restart=0 $(ALONE:%=--ignore=%)
	$(PYTEST) $(ALONE)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy --strict cspedge

clean:
	rm -rf .cspedge cspedge-out build dist
