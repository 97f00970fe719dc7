# The two commands: `make up` runs the default cluster, `make test` passes the tests.
# Each prepares its own virtual environment (.venv) from the lock files; nothing else is needed
# but make and a Python >= 3.11 that can make virtual environments.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
ARGS ?=

# flake8-async. 114 and 128 do not see task_status handed on to another function; 120 asks for what our rule
# on `finally` already says; 124 would forbid handlers that need not wait but must be async.
# It takes a second a file; those without a word of async have nothing for it.
ASYNC_FILES := grep -rlE --include=*.py '\basync\b|\btrio\b'
ASYNC_RULES := ASYNC1,ASYNC2,ASYNC3
ASYNC_NOT := ASYNC114,ASYNC120,ASYNC124,ASYNC128

# The first interpreter on PATH that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do \
	  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help up test lint types ci-long sim chaos fuzz mutants bench accept-2 accept-3 clean lock capture
help:  ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11 with the venv module was found on PATH; install one (Debian: apt-get install python3-venv) or say PYTHON=/path/to/python" >&2; exit 2; }
	@echo "preparing $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

# pysyncobj comes as source only: setuptools and wheel are pinned in the lock and installed first,
# so that no unpinned build dependency is ever fetched.
$(VENV)/.up: requirements.lock pyproject.toml | $(VENV)/bin/python
	@sed -n '/^setuptools==/,/[^\\]$$/p; /^wheel==/,/[^\\]$$/p' requirements.lock > $(VENV)/build.lock
	@$(PIP) install --require-hashes --no-deps -r $(VENV)/build.lock
	@$(PIP) install --require-hashes --no-build-isolation --no-deps -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.up
	@echo "installing what the tests need ..."
	@$(PIP) install --require-hashes --no-build-isolation --no-deps -r requirements-dev.lock
	@touch $@

up: $(VENV)/.up  ## start the default cluster and stay in the foreground (ARGS="--detach" to return)
	@$(BIN)/raftkube up $(ARGS)

test: $(VENV)/.dev  ## linters, types and tests, in under 10 minutes (ARGS="-k name" for a part, ARGS=-n0 for one process)
	@$(MAKE) --no-print-directory lint types
	@$(BIN)/python -m pytest -m "not long" -n 2 --dist loadscope $(ARGS)

lint: $(VENV)/.dev  ## ruff, flake8-async, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/flake8 --select $(ASYNC_RULES) --extend-ignore $(ASYNC_NOT) $$($(ASYNC_FILES) raftkube chaos bench)
	@$(BIN)/flake8 --select $(ASYNC_RULES) --extend-ignore $(ASYNC_NOT),ASYNC100,ASYNC102,ASYNC110 $$($(ASYNC_FILES) tests scripts)
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

types: $(VENV)/.dev  ## mypy, strict
	@$(BIN)/mypy

ci-long: $(VENV)/.dev  ## the longer checks of CI
	@$(BIN)/python -m pytest -m long -n 2 --dist loadscope $(ARGS)

capture: $(VENV)/.dev  ## draw the pictures in docs/images from a real session and a real chaos run
	@$(BIN)/python scripts/capture.py
	@$(BIN)/python scripts/chaos_report_picture.py

sim: $(VENV)/.dev  ## a thousand seeds of the simulated store and a hundred of the control plane (out/sim)
	@$(BIN)/python -m chaos sim --seeds 0:1000 --jobs 2 --quiet --out out/sim/store $(ARGS)
	@$(BIN)/python -m chaos sim --world cluster --duration 300 --seeds 0:100 --jobs 2 --quiet --out out/sim/cluster $(ARGS)

chaos: $(VENV)/.dev  ## half an hour of every live fault over the whole control plane, judged (report in out/chaos)
	@$(BIN)/python -m chaos live --faults all --duration 1800 --out out/chaos $(ARGS)

fuzz: $(VENV)/.dev  ## 100 seeds of a minute each, of faults on a simulated Raft group (ARGS="--seeds 0:500")
	@$(BIN)/python -m chaos.sim.fuzz --group raftkube $(ARGS)

mutants: $(VENV)/.dev  ## every planted bug of the simulated store, until a checker finds it (docs/MUTANTS.md)
	@$(BIN)/python -m chaos mutants --jobs 2 --out chaos/results/mutants.json --plans chaos/seeds/mutants --page docs/MUTANTS.md $(ARGS)

BENCH := $(BIN)/python -m bench
RESULTS := bench/results
bench: $(VENV)/.dev  ## everything beside a real etcd (JSON in bench/results); about an hour on a quiet machine
	@for kind in put get mixed; do for size in 512 4096; do for n in 1 100 1000; do \
	  $(BENCH) $$kind --against etcd --outstanding $$n --value-bytes $$size --seconds 4 \
	    --out $(RESULTS)/$$kind-$$size-$$n.json $(ARGS) || exit 1; done; done; done
	@$(BENCH) watch --against etcd --watchers 100 --out $(RESULTS)/watch-100.json $(ARGS)
	@$(BENCH) watch --against etcd --watchers 1000 --out $(RESULTS)/watch-1000.json $(ARGS)
	@$(BENCH) failover --against etcd --kills 50 --out $(RESULTS)/failover.json
	@$(BENCH) restart --against etcd --out $(RESULTS)/restart.json
	@$(BENCH) soak --out $(RESULTS)/soak.json

accept-2: test  ## the main job, end to end: tests, a minute of kills, the mutant, a bench beside etcd
	@$(BIN)/python -m pytest -m long tests/chaos_live
	@$(BIN)/python -m bench watch --against etcd --repeat 1
	@$(BIN)/python -m bench put --against etcd --repeat 1

accept-3: test  ## the store: tests, the long ones, 500 seeds of faults, every figure beside etcd
	@$(BIN)/python -m pytest -m long tests/store_core tests/store_raft tests/store_server tests/cli_kv tests/e2e
	@$(BIN)/python -m chaos.sim.fuzz --group raftkube --jobs 2 --seeds 0:500
	@$(MAKE) --no-print-directory bench

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache build *.egg-info

lock: $(VENV)/.dev  ## write the lock files anew
	@printf 'setuptools>=80\nwheel>=0.45\n' > $(VENV)/build.in
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml $(VENV)/build.in -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml $(VENV)/build.in --extra dev -c requirements.lock -o requirements-dev.lock
