# Everything runs in .venv, built once from constraints.txt. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DOCS_STAMP := $(VENV)/.docs-stamp
BROWSER_STAMP := $(VENV)/.browser-stamp

# One thread pool: pytest's workers share the cores, so each computes on one thread.
TEST_THREADS := 1

# One worker more than cores, as tests that wait for other processes would leave a core idle.
TEST_WORKERS = $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

# Data sets that lie beside the checkout, unless DPSD_DATA says where they are.
ifneq ($(wildcard ../shared/data),)
export DPSD_DATA ?= $(abspath ../shared/data)
endif

# The environment is not compiled when it is installed, which would take a minute more. Python compiles
# what is used, and has to keep that, also where a user's settings forbid it.
unexport PYTHONDONTWRITEBYTECODE

# What ruff looks at, and the texts outside docs/.
SOURCES := src tests benchmarks examples docs/_site
TEXTS := README.md CONTRIBUTING.md SECURITY.md

SUITES := data-sensitive label-sensitive transfer sensitivity ablation speed scale federated synthetic

.PHONY: help demo setup test suite processes lint docs bench thorough crash fuzz clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# Tests open pages in Chromium, and are skipped with a reason where there is none. It is installed where
# that asks nobody, by root with apt-get; whether or not it succeeds, it is tried once per environment.
$(BROWSER_STAMP):
	@mkdir -p $(VENV)
	@if [ -z "$$DPSD_CHROMIUM" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
	    && ! command -v google-chrome >/dev/null; then \
	    DEBIAN_FRONTEND=noninteractive timeout 240 sh -c \
	        'apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium' \
	        >/dev/null 2>&1 </dev/null \
	        || echo "Chromium cannot be installed: the tests of pages in a browser are skipped"; \
	fi
	@touch $@

# The browser takes no time of its own, as the environment is built meanwhile.
setup:
	$(MAKE) --jobs=2 --no-print-directory $(STAMP) $(BROWSER_STAMP)

demo: $(STAMP) ## transcribe a teacher of real handwritten digits, under label and data protection
	$(BIN)/dpsd demo

lint: $(STAMP) ## format and lint checks, the floors of the package, and types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

test: setup ## lint, types, and every test and doctest
	$(MAKE) --no-print-directory suite
	$(MAKE) --jobs=2 --no-print-directory lint processes

suite: $(STAMP)
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal -m 'not thorough and not federated'

# Real servers and clients wait for each other by the clock, so they share the machine with nothing but
# the type checker, which takes the core that they leave idle.
processes: $(STAMP)
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q -m 'federated and not thorough' tests/federated

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $(DOCS_STAMP)

docs: $(DOCS_STAMP) ## build the documentation site into site/, strictly, and run every example on it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q --doctest-glob='*.md' docs $(TEXTS)
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python tests/documentation/play.py docs/tutorial.md docs/teachers.md docs/federated.md docs/how-to/*.md

bench: $(STAMP) ## the measured figures of benchmarks/RESULTS.md (hours; needs DPSD_DATA)
	for suite in $(SUITES); do $(BIN)/dpsd bench $$suite --seeds 3 --teachers runs/teachers || exit 1; done
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/imagenet_size.py
	$(BIN)/python benchmarks/noise.py
	$(BIN)/python benchmarks/batches.py
	$(BIN)/python benchmarks/convergence.py
	$(BIN)/python benchmarks/attacks.py membership --out runs/attacked
	$(BIN)/python benchmarks/attacks.py inversion --out runs/attacked

thorough: $(STAMP) ## the tests that `make test` leaves out: other settings of what quicker ones show
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal -m 'thorough and not federated'
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q -m 'thorough and federated' tests/federated

crash: $(STAMP) ## kill runs at 200 random moments, and fail every write call in turn
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python tests/durability/crashes.py --kills 200 --faults all

fuzz: $(STAMP) ## feed 20,000 damaged and hostile files to everything that reads one
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python tests/hostile/fuzz.py --inputs 20000

clean: ## remove the environment and caches
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
