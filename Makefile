.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
# `make up DATASET=live` is `MARKETFLOW_DATASET=live make up`
ifdef DATASET
export MARKETFLOW_DATASET := $(DATASET)
endif
SQL := include/sql
# a file's tests stay together, for they share servers; two files at a time: with three the end-to-end tests, which run
# a whole stack each, took several times as long on two cores
WORKERS ?= 2
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup up down status check format test test-% faults-smoke figures replay-captures docs dag lock

help: ## Print this help
	@echo "marketflow: a market-data platform on one machine. Everything below does its own set-up."
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: ## Make .venv/ from the lock and fetch the jars into .jars/
	@scripts/setup

up: setup ## Start the whole stack and wait for the first live rows (DATASET=live for the real venues)
	@.venv/bin/marketflow up

down: setup ## Stop every process; nothing is lost
	@.venv/bin/marketflow down

status: setup ## Say how the stack is
	@.venv/bin/marketflow status

check: setup ## Lint, types, SQL, imports, contracts, compose file
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/sqlfluff lint --disable-progress-bar $(SQL)
	.venv/bin/yamllint -s docker-compose.yaml .pre-commit-config.yaml
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	$(PYTHON) -m marketflow.contracts.document --check
	$(PYTHON) -m marketflow.features.trades.document --check

format: setup ## Let ruff and sqlfluff rewrite what they can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/sqlfluff fix --disable-progress-bar $(SQL)

test: setup ## Every test but the kills: unit, spark, dags, integration, e2e
	.venv/bin/pytest -m "not faults" $(SIDE_BY_SIDE) $(ARGS)

test-%: setup ## One level of the ladder: make test-unit, test-spark, test-dags, test-integration, test-e2e, test-faults
	.venv/bin/pytest -m $* $(if $(filter integration,$*),$(SIDE_BY_SIDE)) $(ARGS)

faults-smoke: setup ## kill -9 six parts of a stack of its own, each once; writes benchmarks/results/faults-smoke.json
	$(PYTHON) -m benchmarks.faults_smoke

figures: setup ## Measure the stack that is up: start, latencies, memory, processor time (30 minutes; WHAT="start watch idle")
	$(PYTHON) -m benchmarks.stack_figures $(WHAT)

replay-captures: setup ## Replay every capture of a folder: make replay-captures CAPTURES=DIR [VS_CURRENCY=usd PRODUCT=BTC-USD INTERVAL=1m]
	$(PYTHON) -m benchmarks.replay_captures "$(CAPTURES)" "$(VS_CURRENCY)" "$(PRODUCT)" "$(INTERVAL)"

docs: setup ## Rewrite the generated docs (docs/tables.md, docs/features.md)
	$(PYTHON) -m marketflow.contracts.document
	$(PYTHON) -m marketflow.features.trades.document

dag: setup ## Run one Dag once, in a database of its own: make dag DAG=gold_bars DATE=2026-11-20T05:00
	@scripts/dag "$(DAG)" "$(DATE)"

lock: ## Recompile requirements.txt from pyproject.toml
	scripts/lock
