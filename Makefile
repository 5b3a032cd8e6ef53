# Two commands: `make run` and `make test`. Both set up .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Environments of their own that share the rest of $(VENV): mmpretrain's real modules and Android's Skia, which the tests
# compare with, and NNCF, which benchmarks/peers.py does.
MMPRETRAIN := .venv-mmpretrain
PEERS := .venv-peers
SKIA := .venv-skia
# the Kotlin compiler; it comes from PyPI too
KOTLIN := .venv-kotlin

.PHONY: run test lint types setup mmpretrain peers skia kotlin clean

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
$(MMPRETRAIN)/.installed: tests/models/mmpretrain-requirements.txt

peers: $(PEERS)/.installed
	@$(PEERS)/bin/python -c 'import sys; sys.modules["openvino_telemetry"] = None; import cspedge, nncf, numpy; \
		assert "$(PEERS)" not in numpy.__file__'
$(PEERS)/.installed: benchmarks/peers-requirements.txt

skia: $(SKIA)/.installed
$(SKIA)/.installed: benchmarks/skia-requirements.txt

kotlin: $(KOTLIN)/.installed
$(KOTLIN)/.installed: apps/android/kotlin-requirements.txt

# The .pth file comes last: what pip installs must not find, and so never touches, what is shared.
.venv-%/.installed: | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --no-deps -r $^
	site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		printf '%s\n' "$$($(BIN)/python -c "$$site")" "$(CURDIR)" > "$$($(@D)/bin/python -c "$$site")/shared.pth"
	@touch $@

run: setup
	$(BIN)/cspedge run

# Two workers on two cores, whole files each; one OpenMP thread, since two on shared cores wait for each other. What
# starts, kills and times whole processes has the machine to itself afterwards.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
ALONE := tests/test_pipeline.py tests/test_package.py

test: setup mmpretrain skia kotlin
	$(PYTEST) -n 2 --dist loadfile --max-worker-restart=0 $(ALONE:%=--ignore=%)
	$(PYTEST) $(ALONE)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy --strict cspedge

clean:
	rm -rf .cspedge cspedge-out build dist apps/ios/.build
