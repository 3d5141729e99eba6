# The commands for people and CI. Needs make and Python 3.11 or newer; everything else is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
TRAIN_ARGS ?=

# The first interpreter that is new enough and can create environments; each is run, because a name on PATH may be broken.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

# Documents with tables made by docs/tables.py.
PAGES := $(shell grep --files-with-matches --fixed-strings '[[[cog' *.md docs/*.md)
COG = $(BIN)/python -m cogapp --verbosity=0 -p "from docs import tables"

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help serve train train-demo report .train-variables .report-variables test check lint types docs format audit soak bench bench-gpu test-containers test-gpu coverage screenshots clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON (creates $(VENV)), PIP_ARGS, PYTEST_ARGS, TRAIN_ARGS, BENCH_ARGS."
	@echo "The service reads its settings from the environment: COVIDCT_PORT=9000 make serve"

# Memory in huge pages, as in the image: the network on a CPU is a tenth faster, see docs/performance.md.
serve bench soak: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

serve: $(VENV)/.serve ## run the service at http://localhost:8000
	exec $(BIN)/python -m service

# Variables are checked before the prerequisite that installs gigabytes.
train: .train-variables $(VENV)/.train ## train the model that ships: make train DATA=../COVID-CT LESIONS=DIR CLEAR=DIR LABELLED="DIR DIR"
	$(BIN)/python -m training train --data "$(DATA)" --lesions "$(LESIONS)" --clear "$(CLEAR)" \
		$(foreach folder,$(LABELLED),--labelled "$(folder)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(TRAIN_ARGS)

.train-variables: .report-variables
	@test -d "$(LESIONS)" || { echo "make train: set LESIONS to a folder of slices with lesion masks;" \
		"docs/training.md has the format" >&2; exit 2; }
	@test -d "$(CLEAR)" || { echo "make train: set CLEAR to a folder of slices with clear lungs" >&2; exit 2; }
	@test -d "$(firstword $(LABELLED))" || { echo "make train: set LABELLED to a folder of slices of another source, of both" \
		"classes, on which the network is judged" >&2; exit 2; }

train-demo: $(VENV)/.train ## train on drawn slices, every stage in two minutes, into runs/demo
	$(BIN)/python -m training draw-sources runs/demo-sources
	$(BIN)/python -m training train --config demo $(TRAIN_ARGS)

report: .report-variables $(VENV)/.train ## repeat the report's experiment: make report DATA=../COVID-CT [TRAIN_ARGS="--learning-rate 0.001"]
	$(BIN)/python -m training report --data "$(DATA)" $(TRAIN_ARGS)

.report-variables:
	@test -d "$(DATA)" || { echo "make: set DATA to a checkout of github.com/UCSD-AI4H/COVID-CT" >&2; exit 2; }

check: lint types test ## run all checks of CI: lint, types, test

lint: $(VENV)/.dev ## check style, format, import directions and generated tables (ruff, import-linter, cog)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(COG) --check --check-fail-msg="run: make docs" $(PAGES)

docs: $(VENV)/.dev ## write the tables of the documents from the code
	$(COG) -r $(PAGES)

types: $(VENV)/.dev ## run mypy in strict mode
	$(BIN)/mypy

# One process for each core, up to four, with one thread each: several threads in each would wait for each other. Each
# takes whole files, in the order of tests/conftest.py. Compiled modules are kept even where the environment says no:
# otherwise every process, and the tests start a hundred, compiles all of them again.
test: $(VENV)/.dev ## run the tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

audit: $(VENV)/.dev ## check the tested versions for known vulnerabilities; needs the internet
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

test-containers: $(VENV)/.dev ## build the images, test compose file and pods; needs root, podman, runc and debootstrap
	$(BIN)/pytest -m containers -s -rs $(PYTEST_ARGS) tests/containers tests/deploy

test-gpu: $(VENV)/.dev ## run the tests that need a GPU, some minutes
	$(BIN)/pytest -m gpu -rs $(PYTEST_ARGS) tests/service/model tests/training/run

soak: $(VENV)/.dev ## run the long load tests, some minutes; prints the figures of docs/reliability.md
	$(BIN)/pytest -m soak -s -q $(PYTEST_ARGS) tests/soak

bench: $(VENV)/.dev ## compare throughput and latency with other frameworks; takes an hour on an idle machine (BENCH_ARGS=--quick: 20 minutes), needs wrk
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-gpu: $(VENV)/.serve ## measure network and service on a GPU, 3 minutes; writes docs/performance-gpu.json
	$(BIN)/python -m benchmarks.gpu $(BENCH_ARGS)

coverage: $(VENV)/.dev ## run the tests and write the coverage report into htmlcov/
	$(BIN)/pytest $(PYTEST_ARGS) --cov --cov-report=html
	@echo "written: htmlcov/index.html"

format: $(VENV)/.dev ## format the code and apply automatic fixes of ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/.dev ## take the screenshots in docs/images; needs Chromium
	$(INSTALL) -e '.[dev,browser]'
	$(BIN)/python docs/screenshots.py

clean: ## remove .venv, caches and reports; runs/ stays
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov coverage.xml dist
	find benchmarks covid_ct service deploy training tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found on PATH; install one," \
		"or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) does not run or is older than Python 3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# Only what serving needs: no torchvision, no test tools.
$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[serve]'
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[serve,training]'
	@touch $@ $(VENV)/.serve

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.train $(VENV)/.serve
