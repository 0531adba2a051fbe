# All commands for developers; they work in a fresh clone too, because each target creates the virtual environment first.
#
#   PYTHON=python3.12 make up     another interpreter (3.11 to 3.14)
#   PORT=8001 make up             another port
#   make up ARGS=-v               with the logs of every process
#   make test TESTS=tests/unit ARGS=-x
#   make bench ARGS=--quick

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: up test test-client test-bucketd test-trust test-worker test-ops test-ui test-tracing trust faults chaos check clients openapi examples fuzz doctor bench bench-hints bench-client bench-engine bench-trust bench-tracing bench-ui flood setup clean help other-interpreter

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
# Each interpreter is started, not only searched: a version manager leaves names on the PATH that do not start.
NAMES := python3.11 python3.12 python3.13 python3.14 python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ifdef PYTHON
# Another interpreter than that of the virtual environment: create it anew.
IDENTITY := import sys; print(sys.base_prefix, sys.version)
ifneq ($(shell $(PYTHON) -c '$(IDENTITY)' 2>&1),$(shell test -x $(BIN)/python && $(BIN)/python -c '$(IDENTITY)'))
STALE := other-interpreter
endif
else
# Evaluated once, when it is first used.
PYTHON = $(eval PYTHON := $(firstword $(foreach name,$(NAMES),$(shell $(name) -c '$(SUITABLE)' >/dev/null 2>&1 && echo $(name)))))$(PYTHON)
endif
# The tests that need no server come first.
FAST := tests/architecture tests/unit
CLIENT := tests/bucket_client tests/docs/test_robust_programs.py tests/docs/test_polling.py
BUCKETD := tests/integration/compose tests/docs/test_agents.py tests/acceptance/test_redis_servers.py
TRUST := tests/trust $(addprefix tests/integration/api/,auth audit integrations limits) \
    $(foreach name,data_rotation erase marked_fields sealed_payloads,tests/acceptance/test_$(name).py)
WORKER := tests/integration/worker
OPS := tests/ops $(addprefix tests/acceptance/test_,bulk_actions.py dead_letters.py)
# The longest files come first, so that no process is left with one of them at the end.
SLOW := $(addprefix tests/,unit/api/test_gunicorn.py acceptance/test_running.py integration/api/test_rest.py \
    acceptance/test_graphs.py acceptance/test_schedules.py)
TRACING := tests/tracing
UI := $(wildcard tests/browser) tests/integration/api/dashboard tests/acceptance/test_dashboard_actions.py
TESTS ?= $(SLOW) $(FAST) $(filter-out $(FAST) $(CLIENT) $(TRUST) $(OPS) $(TRACING) $(UI) tests/faults,$(patsubst %/,%,$(filter-out %__pycache__/,$(wildcard tests/*/)))) \
    $(addprefix --ignore=,$(CLIENT) $(BUCKETD) $(TRUST) $(WORKER) $(OPS) $(UI))
PROCESSES ?= 3
# Two files at a time, the longest first: most of the time they wait.
LONGEST := $(foreach name,chaos workers fuzz redis replica_set defaults,tests/faults/test_$(name).py)
FAULTS ?= $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/faults/test_*.py))
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

up: $(READY) ## runs redis-server, mongod, the API and a worker; one Ctrl-C stops them all
	@exec $(BIN)/bucketd up $(ARGS)

# Three files at a time, because they wait a lot; PROCESSES=0 runs one after the other, which a debugger needs.
test: $(READY) ## runs all tests but test-client, test-bucketd, test-trust, test-worker, test-ops, test-tracing, test-ui and the fault tests; starts its own servers and leaves no process running
	@$(BIN)/python -m pytest $(TESTS) -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-client: $(READY) ## tests the client, its command in a terminal, connectors, examples, the programs of the docs and the integration check
	@$(BIN)/python -m pytest $(CLIENT) -q -n $(PROCESSES) --dist loadfile $(ARGS)

test-bucketd: $(READY) ## tests bucketd on real processes (make up, doctor, commands for operators and authors of agents), and TLS and users of Redis
	@$(BIN)/python -m pytest $(BUCKETD) -q -n $(PROCESSES) --dist loadfile $(ARGS)

test-trust: $(READY) ## tests trust: keys, limits, the audit, sealed content; random requests of two integrators, made-up headers, a scan for secrets
	@$(BIN)/python -m pytest $(TRUST) -q -n $(PROCESSES) --dist loadfile $(ARGS)

test-worker: $(READY) ## tests the worker and the reconciler over real stores: steps, leases, checkpoints, bulk actions
	@$(BIN)/python -m pytest $(WORKER) -q -n $(PROCESSES) --dist loadfile $(ARGS)

test-ops: $(READY) ## tests what operators act on: the parts of health, workers, statistics, metrics and alerts, on real processes
	@$(BIN)/python -m pytest $(OPS) -q -n 2 --dist loadfile $(ARGS)

test-ui: $(READY) ## tests the dashboard: sessions, roles and pages, and each page in a real Chromium
	@$(BIN)/python -m pytest $(UI) -q -n 2 --dist loadfile $(ARGS)

test-tracing: $(READY) ## tests tracing on real processes, with a receiver of OTLP that decodes what they export
	@$(BIN)/python -m pytest $(TRACING) -q $(ARGS)

faults: $(READY) ## runs every fault test and a short chaos run; docs/faults.md lists the faults
	@printf '%s\n' $(FAULTS) | xargs -P 2 -I{} sh -c \
	    'said=$$($(BIN)/python -m pytest {} -q --timeout 240 $(ARGS) 2>&1); code=$$?; echo "{}"; echo "$$said"; exit $$code'

chaos: $(READY) ## chaos test: 2,000 mixed runs while workers die, Redis loses data and primaries step down; ARGS="--seed N" repeats one
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

check: $(READY) ## checks style, types, package layers, docs/openapi.json, and with promtool the alerts of ops/prometheus
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet --config "format.exclude = ['*.md']" .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >$(VENV)/.imports.log 2>&1 || { cat $(VENV)/.imports.log; exit 1; }
	@$(BIN)/python -m api.write_openapi docs/openapi.json --check
	@if command -v promtool >/dev/null; then \
	    { promtool check rules ops/prometheus/rules.yml && promtool test rules ops/prometheus/rules.test.yml; } \
	        >$(VENV)/.promtool.log 2>&1 || { cat $(VENV)/.promtool.log; exit 1; }; \
	else echo "check: ops/prometheus was not checked, because promtool is missing (apt-get install prometheus)"; fi
	@echo "check: ruff, mypy, import-linter and docs/openapi.json found no fault"

trust: $(READY) ## the long form of test-trust: 100,000 requests, 50,000 headers; ARGS="--operations N --seed N --only crossings"
	@$(BIN)/python -m tests.trust $(ARGS)

openapi: $(READY) ## writes docs/openapi.json from the code; `make check` compares the two
	@$(BIN)/python -m api.write_openapi docs/openapi.json

fuzz: $(READY) ## fuzzes a real stack with 20,000 cases that schemathesis makes from the contract; ARGS="--seed N" repeats one
	@$(BIN)/python -m tests.fuzz $(ARGS)

# Needs the package indices of Python and npm; .ci/run makes some of these checks.
clients: $(READY) ## makes clients of docs/openapi.json, each plays a submit and a poll; runs docs/clients.md; checks ops/kubernetes; ARGS=orval takes one
	@$(BIN)/python -m tests.clients $(ARGS)

examples: $(READY) ## records the examples of the contract from a real stack; `make openapi` includes them
	@$(BIN)/python -m tests.record_examples

doctor: $(READY) ## checks this machine and prints the fix for each fault
	@$(BIN)/bucketd doctor $(ARGS)

bench: $(READY) ## compares Bucket with plain Flask + Celery + MongoDB; ARGS="--beside DIRECTORY" adds another checkout
	@$(BIN)/python -m benchmarks.side_by_side $(ARGS)
	@$(BIN)/python -m benchmarks.polling $(filter --quick,$(ARGS))
	@$(BIN)/python -m benchmarks.poll_many $(filter --quick,$(ARGS))
	@$(BIN)/python -m benchmarks.trust $(filter --quick,$(ARGS))
	@$(BIN)/python -m benchmarks.tracing $(filter --quick,$(ARGS))

bench-hints: $(READY) ## measures the poll hints: how often a caller who follows them polls, and how late it sees the end
	@$(BIN)/python -m benchmarks.hints $(ARGS)

bench-client: $(READY) ## measures the client's map of 20,000 runs beside 16 threads that submit and poll one run at a time
	@$(BIN)/python -m benchmarks.client_map $(ARGS)

bench-engine: $(READY) ## measures the messages and writes of a run, and whether a million stored runs make them slower
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-trust: $(READY) ## measures what keys, limits and the audit cost a poll and a submit, beside the same build without them
	@$(BIN)/python -m benchmarks.trust $(ARGS)

bench-ui: $(READY) ## measures how long the API takes for each page of the dashboard, with 100,000 stored runs
	@$(BIN)/python -m benchmarks.dashboard $(ARGS)

bench-tracing: $(READY) ## measures what tracing costs a run; ARGS="--beside DIRECTORY" adds a build before
	@$(BIN)/python -m benchmarks.tracing $(ARGS)

flood: $(READY) ## load test: 10,000 executions at once, polled by 200 clients, every response checked; ARGS="--executions N --clients N"
	@$(BIN)/python -m benchmarks.flood $(ARGS)

setup: $(READY) ## creates only the virtual environment
	@:

$(READY): requirements.lock pyproject.toml client/pyproject.toml $(STALE)
	@if [ -z "$(PYTHON)" ] || ! $(or $(PYTHON),false) -c '$(SUITABLE)' 2>/dev/null; then \
	    echo "Bucket needs Python 3.11 to 3.14; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 | head -1)" >&2; \
	    echo "    apt-get install python3 python3-venv (Debian 12 or newer), or name one: PYTHON=/path/to/python3 make up" >&2; \
	    exit 1; fi
	@if [ -n "$(STALE)" ] || ! $(BIN)/python -c '$(SUITABLE)' 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    echo "creating $(VENV) with $(PYTHON)"; \
	    $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
	        echo "$(PYTHON) cannot create a virtual environment." >&2; \
	        echo "    apt-get install python3-venv" >&2; \
	        rm -rf $(VENV); exit 1; }; fi
	@echo "installing the packages of requirements.lock, each checked by its hash"
	@{ $(PIP) install --require-hashes --no-deps -r requirements.lock && \
	   $(PIP) install --no-deps --no-build-isolation -e . -e ./client && $(PIP) check; } >$(VENV)/pip.log 2>&1 || { \
	    cat $(VENV)/pip.log >&2; echo "the packages could not be installed" >&2; exit 1; }
	@touch $@

clean: ## removes the virtual environment and all caches; keeps the data in .bucket
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
