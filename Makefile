# What people and CI run. Needs make and Python 3.11 or newer; everything else goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
TRAIN_ARGS ?=

# The first interpreter that is new enough and can make environments; asked, because a name on PATH may not run.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help serve train test check lint types format audit soak bench test-containers coverage screenshots clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON (interpreter for a new $(VENV)), PIP_ARGS, PYTEST_ARGS, TRAIN_ARGS, BENCH_ARGS."
	@echo "The service reads its settings from the environment: COVIDCT_PORT=9000 make serve"

serve: $(VENV)/.serve ## run the service on http://localhost:8000
	exec $(BIN)/python -m service

train: $(VENV)/.train ## train a model: make train DATA=../COVID-CT [WEIGHTS=vgg19_bn.pth]
	@test -n "$(DATA)" || { echo "make train: set DATA to a checkout of github.com/UCSD-AI4H/COVID-CT" >&2; exit 2; }
	$(BIN)/python -m training train --data "$(DATA)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(TRAIN_ARGS)

check: lint types test ## everything that CI checks

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

test: $(VENV)/.dev ## pytest, with coverage
	$(BIN)/pytest $(PYTEST_ARGS) --cov

audit: $(VENV)/.dev ## known vulnerabilities of the tested versions; asks a service on the internet
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

test-containers: $(VENV)/.dev ## build the images and run the compose file; needs root, podman, runc, debootstrap
	$(BIN)/pytest -m containers -s -rs $(PYTEST_ARGS) tests/containers

soak: $(VENV)/.dev ## the long load tests, some minutes; prints what docs/reliability.md states
	$(BIN)/pytest -m soak -s -q $(PYTEST_ARGS) tests/soak

bench: $(VENV)/.dev ## throughput and latency beside other frameworks, an hour of a quiet machine; needs wrk and Java 17
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

coverage: $(VENV)/.dev ## pytest, with coverage as pages in htmlcov/
	$(BIN)/pytest $(PYTEST_ARGS) --cov --cov-report=html
	@echo "written: htmlcov/index.html"

format: $(VENV)/.dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/.dev ## the pictures of docs/images; needs Chromium
	$(INSTALL) -e '.[dev,browser]'
	$(BIN)/python docs/screenshots.py

clean: ## remove .venv, caches and reports; runs/ stays
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov coverage.xml dist
	find benchmarks service client training tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found on PATH; install one," \
		"or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) does not run or is older than Python 3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# Serving alone: no torchvision, no test tools.
$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[training]'
	@touch $@ $(VENV)/.serve

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.train $(VENV)/.serve
