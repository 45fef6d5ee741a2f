# What a clone needs: make, git, python >= 3.10 and a package index. Nothing is installed outside
# .venv, except by `make test` as root on a machine with apt (see there).

PYTHON  ?= python3
# These are the command line's to change: conda and tcsh have a HOST in every environment.
HOST    := local
PROFILE := cpu
JOB     := mdlm-pretrained-fixed
DATA    := sst2
RESULTS_ARGS :=
PYTEST_ARGS ?=
# Most tests wait for other processes most of the time; a file's tests stay in one process.
PARALLEL ?= -n 3 --dist loadfile

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
# Constraints, not requirements: exact versions of what pyproject.toml asks for, and of nothing else.
INSTALL := $(PIP) install --quiet --constraint requirements.lock

# Datasets beside the checkout are used when nothing else is said.
ifndef ORCH_DATA
ifneq ($(wildcard ../shared/data/.),)
export ORCH_DATA := $(abspath ../shared/data)
endif
endif

# The jobs' log is read while they run.
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help venv jobs-venv mlflow-venv format check test test-tools faults simulate fuzz soak bench corpus results retrain example-report lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# -- environment ------------------------------------------------------------------------------

venv: $(VENV)/.stamp-dev ## .venv with orch, the tests' and the developers' tools

jobs-venv: $(VENV)/.stamp-jobs ## the same, and torch for the jobs that run on `local`

$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "error: no '$(PYTHON)' here. orch needs python >= 3.10: install it, or name one: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "error: $(PYTHON) is `$(PYTHON) --version 2>&1`, and orch needs >= 3.10. Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments (no ensurepip). On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with `$(PYTHON) --version`"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml requirements.lock | $(VENV)/.stamp-venv
	@echo "installing orch and its tools"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.stamp-jobs: pyproject.toml requirements.lock | $(VENV)/.stamp-dev
	@echo "installing torch for the jobs (large)"
	@$(INSTALL) --editable '.[jobs]'
	@touch $@

mlflow-venv: $(VENV)/.stamp-mlflow ## .venv/mlflow with an MLflow server, for the test of the export

# Not compiled: most of its hundred packages are never imported.
$(VENV)/.stamp-mlflow: pyproject.toml | $(VENV)/.stamp-dev
	@echo "installing an MLflow server for its test"
	@$(PYTHON) -m venv --clear $(VENV)/mlflow
	@$(VENV)/mlflow/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
	  --editable '.[mlflow]' 'mlflow>=3,<4'
	@touch $@

lock: pyproject.toml ## requirements.lock anew, for all platforms and pythons
	@test -x $(VENV)/lock-tool/bin/uv || { $(PYTHON) -m venv $(VENV)/lock-tool && \
	  $(VENV)/lock-tool/bin/python -m pip --disable-pip-version-check install --quiet uv; }
	@$(VENV)/lock-tool/bin/uv pip compile --quiet --universal --upgrade --python-version 3.10 \
	  --extra dev --extra jobs --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml
	@! grep -n '://' requirements.lock || { echo "error: requirements.lock names a host" >&2; exit 1; }

# -- checks -----------------------------------------------------------------------------------

format: venv ## rewrite the code as ruff wants it
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

check: venv ## lint, format, types, unit tests: 25 s of one core
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit $(PYTEST_ARGS)

test: venv test-tools ## every test this machine can run; says which it cannot
	@$(MAKE) --no-print-directory jobs-venv || \
	  echo "note: torch could not be installed; the lane 'torch' will be skipped" >&2
	@$(MAKE) --no-print-directory mlflow-venv || \
	  echo "note: MLflow could not be installed; the lane 'mlflow' will be skipped" >&2
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

faults: venv test-tools ## the tests of docs/faults.md, row by row
	@$(BIN)/python -m pytest -m fault $(PARALLEL) $(PYTEST_ARGS)

soak: venv test-tools ## the fault tests in full size: every step, 500 kills, 1 000 reconnects, 100 runs
	@$(BIN)/python -m pytest -q -s tests/faults --full -o faulthandler_timeout=7200 $(PYTEST_ARGS)

simulate: venv ## 10 000 histories of controllers, host and link; SEED=n shows one
	@$(BIN)/python -m tests.faults.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

fuzz: venv ## frames, requests, specs, metrics, manifests, results, found runs: 119 000 cases; CASES=n of each
	@CASES=$(or $(CASES),17000) $(BIN)/python -m pytest -q tests/faults/test_fuzz.py --hypothesis-profile=fuzz \
	  -o faulthandler_timeout=7200 $(PYTEST_ARGS)

# The programs the tests run besides python. As root with apt the missing ones are installed
# (RUNLEVEL=1: without starting a service; --no-remove: whatever init there is stays); otherwise
# their lanes are named and skipped.
test-tools:
	@missing=; lanes=; \
	need() { PATH="$$PATH:/usr/sbin:/sbin" command -v "$$1" >/dev/null 2>&1 || test -e "$$1" || { \
	  missing="$$missing $$2"; lanes="$$lanes $$3"; }; }; \
	need sshd openssh-server ssh; need ssh openssh-client ssh; need rsync rsync ssh; need strace strace tracing; \
	need tmux tmux sessions; need screen screen sessions; \
	need fish fish shells; need tcsh tcsh shells; need zsh zsh shells; \
	need /usr/lib/systemd/user/dbus.socket dbus-user-session logins; \
	test -n "$$missing" || exit 0; \
	if test "`id -u`" = 0 && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  { apt-get -qq update && \
	    apt-get -qq install -y --no-install-recommends --no-remove $$missing; } >/dev/null </dev/null && exit 0; \
	  echo "note: apt-get failed" >&2; \
	fi; \
	echo "note: not installed:$$missing; lanes that need them will be skipped:$$lanes" >&2

bench: venv test-tools ## the speed table, against rsync, ssh and tmux by hand: docs/benchmarks.md
	@$(BIN)/python -m tests.bench --write docs/benchmarks.md $(BENCH_ARGS)

results: jobs-venv ## train and judge what docs/results.md lacks, and write it: DATA=sst2 PROFILE=cpu HOST=local
	@$(BIN)/python -m jobs.results --run --data $(DATA) --profile $(PROFILE) --host $(HOST) $(RESULTS_ARGS)

# -- the job this project is about --------------------------------------------------------------

# 1 and 7 are verdicts on a run that exists: it is still fetched and shown, and the code passed on.
retrain: venv ## train again and show what came of it: HOST=local PROFILE=cpu JOB=...
	@if test "$(HOST)" = local; then $(MAKE) --no-print-directory jobs-venv; fi
	@PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH; code=0; \
	orch submit $(JOB) --host $(HOST) --profile $(PROFILE) -f || code=$$?; \
	case $$code in 0|1|7) ;; *) exit $$code ;; esac; \
	fetched=0; orch fetch-results $(JOB) || fetched=$$?; \
	orch show $(JOB) || test $$code -ne 0 || code=$$?; \
	test $$code -ne 0 || code=$$fetched; \
	exit $$code

# The mistake this project is about and its mending, both run for real at the smallest size. The bad
# one: nothing of a checkpoint is loaded, as a lenient load lets pass; at the reference's learning
# rate the warm-up is nearly the whole of the run; 1 000 texts are judged as they were then, by one
# independent draw a class. --force: the config as it was is refused. --no-canary: it would be
# stopped there. From a clean commit, or the report says that the code had changes.
EXAMPLE_GOOD = mdlm-pretrained-fixed --profile cpu-smoke
EXAMPLE_BAD = mdlm-pretrained --profile cpu --set data.selfmade_train=4000 \
  --set data.selfmade_test=1000 --set data.vocab_size=3000 --set model.length=48 \
  --set pretrain.steps=0 --set optim.lr=3e-4 --set training.max_steps=520 \
  --set loader.global_batch_size=8
example-report: jobs-venv ## docs/example-report.html and .md anew, from two real runs
	@PATH="$(CURDIR)/$(BIN):$$PATH" ORCH_HOME="$(CURDIR)/build/example"; export PATH ORCH_HOME; \
	ended() { test "$$1" -eq 0 || test "$$1" -eq 1 || test "$$1" -eq 7 || exit "$$1"; }; \
	good=`orch submit $(EXAMPLE_GOOD) --host local --no-canary` && orch wait $$good; ended $$?; \
	bad=`orch submit $(EXAMPLE_BAD) --host local --no-canary --force \
	  --note "the config as it was"` && orch wait $$bad; ended $$?; \
	orch fetch-results $$good $$bad >/dev/null; ended $$?; \
	for kind in html md; do \
	  orch report $$bad --against $$good -o docs/example-report.$$kind || exit $$?; done

corpus: venv ## what the checks catch, measured: docs/checks.md
	@$(BIN)/python -m tests.corpus --write docs/checks.md $(CORPUS_ARGS)

clean: ## caches only; results and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find orchestrator remote jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
