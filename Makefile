# Everything a developer does, from a fresh clone too: each target makes its own virtual environment first.
#
#   PYTHON=python3.12 make up     another interpreter (3.11 or newer)
#   PORT=8001 make up             another port
#   make up ARGS=-v               with the logs of every process
#   make test TESTS=tests/unit ARGS=-x
#   make bench ARGS=--quick

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: up test faults chaos check openapi examples fuzz doctor bench bench-hints bench-engine flood setup clean help

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# Tried and not only looked for: a version manager leaves names on the PATH that do not start.
NAMES := python3.11 python3.12 python3
ifndef PYTHON
# Found when it is first wanted, and once.
PYTHON = $(eval PYTHON := $(firstword $(foreach name,$(NAMES),$(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(name)))))$(PYTHON)
endif
# What needs no server first.
FAST := tests/architecture tests/unit
TESTS ?= $(FAST) $(filter-out $(FAST) tests/faults tests/browser,$(patsubst %/,%,$(filter-out %__pycache__/,$(wildcard tests/*/))))
PROCESSES ?= 2
# Two files at a time, the longest first: most of what they do is to wait.
LONGEST := $(foreach name,chaos workers fuzz redis replica_set defaults,tests/faults/test_$(name).py)
FAULTS ?= $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/faults/test_*.py))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

up: $(READY) ## redis-server, mongod, the API and a worker, under one Ctrl-C
	@exec $(BIN)/bucketd up $(ARGS)

# Two files at a time, for much of what they do is to wait; PROCESSES=0 takes one after the other, as a debugger needs it.
test: $(READY) ## every test; starts its own servers and leaves nothing behind
	@$(BIN)/python -m pytest $(TESTS) -q -n $(PROCESSES) --dist loadfile $(ARGS)

faults: $(READY) ## every directed fault, and a short chaos: what dies, freezes or lies; docs/faults.md lists them
	@printf '%s\n' $(FAULTS) | xargs -P 2 -I{} sh -c \
	    'said=$$($(BIN)/python -m pytest {} -q --timeout 240 $(ARGS) 2>&1); code=$$?; echo "{}"; echo "$$said"; exit $$code'

chaos: $(READY) ## 2,000 mixed runs while workers die, Redis forgets and primaries step down; ARGS="--seed N" plays one again
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

check: $(READY) ## style, types, the layers of the packages, and whether docs/openapi.json is what the code says
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet --config "format.exclude = ['*.md']" .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >$(VENV)/.imports.log 2>&1 || { cat $(VENV)/.imports.log; exit 1; }
	@$(BIN)/python -m api.write_openapi docs/openapi.json --check
	@echo "check: ruff, mypy, import-linter and docs/openapi.json have nothing to say"

openapi: $(READY) ## writes docs/openapi.json anew from the code; `make check` compares the two
	@$(BIN)/python -m api.write_openapi docs/openapi.json

fuzz: $(READY) ## 20,000 cases that schemathesis makes of the contract, against a real stack; ARGS="--seed N" plays one again
	@$(BIN)/python -m tests.fuzz $(ARGS)

examples: $(READY) ## asks a real stack for the examples of the contract anew; `make openapi` takes them in
	@$(BIN)/python -m tests.record_examples

doctor: $(READY) ## looks at this machine and names the fix for each fault
	@$(BIN)/bucketd doctor $(ARGS)

bench: $(READY) ## Bucket and plain Flask + Celery + MongoDB, measured side by side: ratios, and where the CPU goes
	@$(BIN)/python -m benchmarks.side_by_side $(ARGS)
	@$(BIN)/python -m benchmarks.polling $(filter --quick,$(ARGS))
	@$(BIN)/python -m benchmarks.poll_many $(filter --quick,$(ARGS))

bench-hints: $(READY) ## what a caller pays who polls exactly when told: how often, and how late he learns of the end
	@$(BIN)/python -m benchmarks.hints $(ARGS)

bench-engine: $(READY) ## messages and writes of a run, and whether a million stored runs make any of them dearer
	@$(BIN)/python -m benchmarks.engine $(ARGS)

flood: $(READY) ## 10,000 executions in flight, polled by 200 clients: no answer may lie; ARGS="--executions N --clients N"
	@$(BIN)/python -m benchmarks.flood $(ARGS)

setup: $(READY) ## the virtual environment alone
	@:

$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! $(or $(PYTHON),false) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	    echo "Bucket needs Python 3.11 or 3.12, and $(or $(PYTHON),python3) is none." >&2; \
	    echo "    apt-get install python3.11 python3.11-venv, or name one: PYTHON=/path/to/python3.11 make up" >&2; \
	    exit 1; fi
	@if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "making $(VENV) with $(PYTHON)"; \
	    $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
	        echo "$(PYTHON) cannot make a virtual environment." >&2; \
	        echo "    apt-get install python3-venv" >&2; \
	        rm -rf $(VENV); exit 1; }; fi
	@echo "installing the packages of requirements.lock, each checked by its hash"
	@{ $(PIP) install --require-hashes --no-deps -r requirements.lock && \
	   $(PIP) install --no-deps --no-build-isolation -e . ; } >$(VENV)/pip.log 2>&1 || { \
	    cat $(VENV)/pip.log >&2; echo "the packages could not be installed" >&2; exit 1; }
	@touch $@

clean: ## takes away the virtual environment and all caches; the data in .bucket stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
