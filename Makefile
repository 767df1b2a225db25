# What a developer needs, in one word each; the environment is .venv in this folder.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What `make torture` does where neither is given.
ifndef CUTS
KILLS ?= 2000
endif
ATTACK ?= 60

.PHONY: setup demo run test torture attack lint bench coverage onnx-coverage docs release clean

setup: $(INSTALLED)
	$(BIN)/fluxdrop setup

# Torch comes as constraints.txt pins it; name another wheel index in PIP_EXTRA_INDEX_URL for a CPU-only build.
# Compiled here, as a container's PYTHONDONTWRITEBYTECODE would have each of hundreds of processes do it anew.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[generate,dev,docs]'
	$(BIN)/python -m compileall -q daemon
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

run: setup
	$(BIN)/fluxdrop run --root .

# Every test once: the fast ones with their coverage, then the others. More processes than these would rather fill the
# memory with torch and Julia than be faster.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: coverage
	$(PYTEST) -m slow

# `make torture KILLS=100000 SEED=...` kills daemons, `CUTS=300` cuts the power that often on each of three filesystems
# (as root); the seed is printed, to repeat a run that failed.
torture: setup
	$(if $(KILLS),PYTHONPATH=tests $(BIN)/python -m support.torture --kills $(KILLS) $(if $(SEED),--seed $(SEED)))
	$(if $(CUTS),PYTHONPATH=tests $(BIN)/python -m support.power_cuts --cuts $(CUTS) $(if $(SEED),--seed $(SEED)))

# `make attack ATTACK=600`: strangers who may write one folder of a root try what they can, for so many seconds.
attack: setup
	ATTACK_SECONDS=$(ATTACK) $(BIN)/pytest tests/system/test_attack.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

# Of the fast tests alone, as most of the others start the program anew.
coverage: setup
	$(PYTEST) -m "not slow" --cov

# A failure is written down, too, and fails the target.
onnx-coverage: setup
	notes=$$(mktemp) && FLUXDROP_COVERAGE=$$notes $(BIN)/pytest tests/predict/test_onnx_nodes.py; failed=$$?; \
	PYTHONPATH=tests $(BIN)/python -m support.write_coverage $$notes docs/onnx-coverage.md && rm $$notes && exit $$failed

# Into site/; a link or a reference that leads nowhere fails it.
docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs site

# `make release VERSION=1.2.3` checks and builds dist/ and installs both files anew; it uploads nothing.
release: $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[release]'
	$(BIN)/python -m tools.release '$(VERSION)'

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site docs/reference
