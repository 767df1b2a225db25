# The targets that a developer needs. The virtual environment is .venv in this folder.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What `make torture` does where no number is given.
ifeq ($(CUTS)$(CLUSTER),)
KILLS ?= 2000
endif
ATTACK ?= 60

.PHONY: setup demo run test torture attack models lint bench coverage onnx-coverage docs release clean

setup: $(INSTALLED)
	$(BIN)/fluxdrop setup

# constraints.txt pins torch. For a build for the CPU only, set PIP_EXTRA_INDEX_URL to another wheel index.
# The modules are compiled here because with PYTHONDONTWRITEBYTECODE, which containers often set, each of the hundreds of
# processes that the tests start would compile them again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[generate,cluster,dev,docs]'
	$(BIN)/python -m compileall -q daemon
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

run: setup
	$(BIN)/fluxdrop run --root .

# Compiled modules are kept also where that is set: each process of a test run would compile all tests again, and each
# that the tests start what was changed since in the daemon.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest

# Every test once: the fast ones with their coverage, then the others, which wait more than they compute, file by file:
# what the tests of a file share takes long to make. More than four processes would fill the memory with torch and Julia.
test: setup coverage
	$(PYTEST) --numprocesses 4 --dist loadfile --no-loadscope-reorder -m slow

# `make torture KILLS=100000 SEED=...` kills daemons, `CUTS=300` cuts the power that often on each of three filesystems
# (as root), and `CLUSTER=300` takes that many parts of a cluster away (as root); the seed is printed, to repeat a run
# that failed.
torture: setup
	$(if $(KILLS),PYTHONPATH=tests $(BIN)/python -m support.torture --kills $(KILLS) $(if $(SEED),--seed $(SEED)))
	$(if $(CUTS),PYTHONPATH=tests $(BIN)/python -m support.power_cuts --cuts $(CUTS) $(if $(SEED),--seed $(SEED)))
	$(if $(CLUSTER),PYTHONPATH=tests $(BIN)/python -m support.cluster_torture --events $(CLUSTER) $(if $(SEED),--seed $(SEED)))

# `make attack ATTACK=600`: other users who may write to one folder of a root attack it for that many seconds.
attack: setup
	ATTACK_SECONDS=$(ATTACK) $(BIN)/pytest tests/system/test_attack.py

# `make models` adds 42 architectures of timm and 32 models of transformers, each in the forms that people have, and compares
# their answers on photographs with those of the libraries. It takes an hour or two, and needs .venv/bin/pip install
# -e '.[torch]'. `NETWORKS='resnet10t vit'` chooses some; with `RESULTS=FILE` a run that was stopped goes on.
models: setup
	PYTHONPATH=tests $(BIN)/python -m support.sweep $(NETWORKS) $(if $(RESULTS),--results $(RESULTS))

# Which module may import which is a test: tests/test_layers.py.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

# Of the fast tests only: most of the others start new processes, which are not measured. They need no Julia.
coverage: $(INSTALLED)
	$(PYTEST) --numprocesses auto --maxprocesses 4 --dist worksteal -m "not slow" --cov

# The page also shows failures; a failure makes the target fail.
onnx-coverage: setup
	notes=$$(mktemp) && FLUXDROP_COVERAGE=$$notes $(BIN)/pytest tests/predict/test_onnx_nodes.py; failed=$$?; \
	PYTHONPATH=tests $(BIN)/python -m support.write_coverage $$notes docs/onnx-coverage.md && rm $$notes && exit $$failed

# Writes site/. Fails if a link or a reference leads nowhere.
docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs site

# `make release VERSION=1.2.3` checks and builds dist/ and installs both files anew; it uploads nothing.
release: $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[release]'
	$(BIN)/python -m tools.release '$(VERSION)'

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site docs/reference
