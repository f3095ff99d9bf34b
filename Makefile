# `make demo` and `make test` build their own environment from requirements.lock: only Python (3.11 or newer, for the
# versions pinned there) with venv and pip is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK_VENV := $(VENV)-lock
LOCK_PINS ?= torch==2.13.0 transformers==5.23.0

.DEFAULT_GOAL := help
.PHONY: help demo test lint lock

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(STAMP) ## distil a small student from a teacher and show what it gained
	$(BIN)/python run_distill.py

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest

lint: $(STAMP) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hf_lelp run_distill.py

# torch goes first and with its dependencies: some builds of it need CUDA packages, which the lock, being for any machine,
# does not list. A build without CUDA brings none in.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint requirements.lock torch
	$(BIN)/python -m pip install --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## resolve the dependencies afresh and rewrite requirements.lock
	$(PYTHON) -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install $(filter torch==%,$(LOCK_PINS))
	$(LOCK_VENV)/bin/python -m pip install $(LOCK_PINS) --editable '.[demo,dev,onnx]'
	{ \
	  echo "# The full closure of hf-lelp[demo,dev,onnx], exact; install with: pip install --no-deps -r requirements.lock"; \
	  echo "# Written by 'make lock' ($$($(LOCK_VENV)/bin/python --version), $(LOCK_PINS)); do not edit by hand."; \
	  echo "# No CUDA packages and no local version: the same file serves every build of torch."; \
	  $(LOCK_VENV)/bin/python -m pip freeze --all --exclude pip --exclude-editable \
	    | grep -Eiv '^(nvidia|cuda|triton)' | sed 's/+[a-z0-9.]*$$//'; \
	} > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf $(LOCK_VENV)
