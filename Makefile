# Touchstone: `make` alone prints this help.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGES ?=
# What `make soak` is told beside the variables TOUCHSTONE_SOAK_KILLS, _ROUNDS, _WAVE, _MEMORY_UPLOADS and so on.
SOAK ?=
# Each brings up a Kafka and a Redis of its own.
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint check promtool run format lock schemas clean

help: ## print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## virtual environment with locked dependencies in .venv; leaves .venv/bin/touchstone

# uv installs several times faster than pip; it is itself verified against the lock before it is used.
$(STAMP): requirements-dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), f"Python 3.11 to 3.13 wanted, found {sys.version}"'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@awk '/^uv==/{p=1} p{print} p&&!/\\$$/{exit}' requirements-dev.lock > $(VENV)/uv.lock.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/uv.lock.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements-dev.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## the main job on real servers, in about a minute (IMAGES=folder for your own pictures)
	@$(BIN)/touchstone demo $(if $(IMAGES),--images "$(IMAGES)")

# Compiled modules are kept even where the environment says otherwise: hundreds of processes import the same libraries.
test: export PYTHONDONTWRITEBYTECODE =
test: setup promtool ## all tests, on real Kafka and Redis
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not alone"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone

soak: setup ## long campaigns of faults on real servers, and a table of what was lost (SOAK="--only kill --json")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak $(SOAK)

promtool: ## .tools/promtool for the tests of the alerts, where apt has it; needs no root
	@docker/prometheus/fetch_promtool.sh

lint: setup ## format, lint, types, drift of the exported schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/touchstone schemas export --check
	$(BIN)/yamllint --strict docker
	$(BIN)/hadolint docker/Dockerfile

check: lint ## all of lint, and the fast tests
	$(BIN)/python -m pytest -q tests/unit tests/property tests/architecture

run: setup ## the worker, with config/worker.toml and config/local.toml
	$(BIN)/touchstone run --overlay config/local.toml

format: setup ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: setup ## write schemas/json anew from the models
	$(BIN)/touchstone schemas export

lock: setup ## resolve the dependencies anew; versions and hashes only, no registry address
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra dev --extra test pyproject.toml -o requirements-dev.lock

clean: ## remove the virtual environment, promtool and all caches
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
