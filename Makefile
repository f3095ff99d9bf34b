# `make demo` and `make test` build their own environment from requirements.lock: only Python (3.11 or newer, for the
# versions pinned there) with venv and pip is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SURROUNDINGS := $(VENV)/.surroundings
DOCS := $(VENV)/.docs
LOCK_VENV := $(VENV)-lock
LOCK_PINS ?= torch==2.13.0 transformers==5.23.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-quick test-lowest benchmark docs lint lock wheel

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: $(STAMP) ## distil a small student from a teacher and show what it gained
	$(BIN)/python run_distill.py

# Tests run in as many processes as there are cores, eight at most, with a thread each: more threads than cores are slow.
WORKERS ?= auto
PYTEST = python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal
# The core: equations, columns, the fit, targets, heads, settings, files.
QUICK := tests/data tests/storage tests/projections tests/teacher/test_class_order.py tests/training/test_targets.py \
  tests/training/test_student_inputs.py tests/student/test_heads.py tests/project/test_rooms.py \
  tests/test_classifiers.py tests/test_config.py tests/test_losses.py tests/test_main.py tests/test_markdown.py

test: $(STAMP) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST)

test-all: $(SURROUNDINGS) ## run all tests, with those that need a browser, Ray or notebooks
	ALL_TESTS=1 OMP_NUM_THREADS=1 $(BIN)/$(PYTEST)

test-quick: $(STAMP) ## a verdict on the core, in about a minute
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) $(QUICK)

# The lowest versions that pyproject.toml admits and the tests pass on, with what they need; the rest from the lock.
LOWEST ?= transformers==5.13.1 datasets==4.0.0
LOWEST_TESTS ?= tests

test-lowest: $(VENV)-lowest/.lowest ## run the tests on the lowest versions of transformers and datasets
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/$(PYTEST) $(LOWEST_TESTS)

$(VENV)-lowest/.lowest: requirements.lock pyproject.toml
	$(MAKE) VENV=$(VENV)-lowest $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pip install --quiet $(LOWEST)
	@touch $@

# Warnings are errors, and so is a link within the site that leads nowhere.
docs: $(DOCS) ## build the documentation's site from docs/ and the docstrings, in docs/_build/html
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

benchmark: $(STAMP) ## run the evidence: hours, in parts that resume (PARTS=trials for what led to it)
	$(BIN)/python -m benchmarks.evidence $(PARTS)
	$(BIN)/python -m benchmarks.evidence.page

lint: $(STAMP) ## check style, formatting, types and which part imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hf_lelp run_distill.py benchmarks examples
	$(BIN)/lint-imports --no-cache --no-logo

# torch goes first and with its dependencies: some builds of it need CUDA packages, which the lock, being for any machine,
# does not list. A build without CUDA brings none in.
$(STAMP): requirements.lock pyproject.toml
	@echo "Building the environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock torch
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# What the tests marked `surroundings` need beside that. A browser is none of Python's: .ci/run installs Debian's.
$(SURROUNDINGS): requirements-surroundings.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-surroundings.lock
	@touch $@

$(DOCS): requirements-docs.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-docs.lock
	@touch $@

# What an earlier build left goes first: setuptools would pack it again. The environment of the check is
# empty but for the wheel, so that the program's help and version need nothing else.
DIST ?= dist
WHEEL_VENV := $(VENV)-wheel

wheel: $(STAMP) ## build the wheel and the sdist, and run the program from the wheel alone
	rm -rf build $(DIST)/hf_lelp-* $(WHEEL_VENV)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir $(DIST) .
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('$(DIST)')" >/dev/null
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --no-deps --no-index $(DIST)/*.whl
	$(WHEEL_VENV)/bin/hf-lelp --help
	$(WHEEL_VENV)/bin/hf-lelp --version
	rm -rf build $(WHEEL_VENV)

# No CUDA packages and no local version: the same file serves every build of torch.
FREEZE = $(LOCK_VENV)/bin/python -m pip freeze --all --exclude pip --exclude-editable \
  | grep -Eiv '^(nvidia|cuda|triton)' | sed 's/+[a-z0-9.]*$$//'

lock: ## resolve the dependencies afresh and rewrite the files requirements*.lock
	$(PYTHON) -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install $(filter torch==%,$(LOCK_PINS))
	$(LOCK_VENV)/bin/python -m pip install $(LOCK_PINS) --editable '.[demo,dev,onnx]'
	{ \
	  echo "# The full closure of hf-lelp[demo,dev,onnx], exact; install with: pip install --no-deps -r requirements.lock"; \
	  echo "# Written by 'make lock' ($$($(LOCK_VENV)/bin/python --version), $(LOCK_PINS)); do not edit by hand."; \
	  echo "# No CUDA packages and no local version: the same file serves every build of torch."; \
	  $(FREEZE); \
	} > requirements.lock.new
	mv requirements.lock.new requirements.lock
	$(LOCK_VENV)/bin/python -m pip install --constraint requirements.lock --editable '.[ray,surroundings]'
	{ \
	  echo "# What hf-lelp[ray,surroundings] needs beside requirements.lock, exact: for the tests of 'make test-all'."; \
	  echo "# Written by 'make lock'; do not edit by hand."; \
	  $(FREEZE) | grep -Fvxf requirements.lock; \
	} > requirements-surroundings.lock.new
	mv requirements-surroundings.lock.new requirements-surroundings.lock
	$(LOCK_VENV)/bin/python -m pip install --quiet --ignore-installed --dry-run --report docs.lock.json \
	  --constraint requirements.lock sphinx myst-parser furo sphinx-copybutton
	$(LOCK_VENV)/bin/python docs/site_parts/lock.py docs.lock.json > requirements-docs.lock.new
	mv requirements-docs.lock.new requirements-docs.lock
	rm -rf $(LOCK_VENV) docs.lock.json
