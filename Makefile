# `make demo` and `make test` need Python 3.11 or newer and nothing else.
# What is not an answer goes to standard error, so that `make demo ARGS=--json` prints one object.
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS ?=
PYTEST ?= -n 2 --dist worksteal

.PHONY: help setup demo test lint bench lock secrets clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## the virtual environment in .venv, with all that is needed

$(STAMP): pyproject.toml scripts/setup
	@scripts/setup $(VENV) >&2
	@touch $(STAMP)

demo: $(STAMP) ## the whole fleet at work on this machine: make demo ARGS="--workers 3 --kill"
	@$(BIN)/fleet demo $(ARGS)

test: $(STAMP) ## all tests, on AMQP_URL, Docker or a local RabbitMQ
	@$(BIN)/python -m pytest $(PYTEST) tests $(ARGS)

lint: $(STAMP) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(STAMP) ## the benchmarks: make bench ARGS="consume --json"
	@$(BIN)/python -m bench $(ARGS)

lock: $(STAMP) ## renew the two lock files that the image is built from
	@scripts/lock $(VENV)

secrets: ## random passwords for docker compose in ./secrets; what is there stays
	@scripts/secrets

clean: ## remove the virtual environment and every cache
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
