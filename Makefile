# make demo   the simulation with the packaged model       make test   the tests
# make lint   ruff, pyright, import-linter                 make bench  the benchmarks
# make docs   the documentation as a site, in site/       make torture  tests far longer than any in make test
# The first of them builds .venv from pinned versions. Another interpreter: make PYTHON=python3.12 demo
# Tests run in as many processes as there are cores, eight at most: make WORKERS=0 test runs them in one.
# pip's own settings come from PIP_* variables and its configuration file.

PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
# Versions for which every pinned package has a wheel.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= logical
# Bytecode is kept, whatever the environment says: without, each process compiles all modules and tests anew.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q
BENCHMARKS = $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))

.PHONY: demo test torture lint docs bench clean

demo: .venv/.done
	$(BIN)/steer demo

test: .venv/.done
	$(PYTEST) -n $(WORKERS) --maxprocesses 8 --dist worksteal

torture: .venv/.done
	$(PYTEST) -m torture

lint: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The variable silences an advertisement for mkdocs-material's successor.
docs: .venv/.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.done
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

.venv/bin/python:
	@for name in $(CANDIDATES); do \
		if "$$name" -c '$(SUPPORTED)' 2>/dev/null; then \
			echo "creating .venv with $$name"; \
			exec "$$name" -m venv .venv; \
		fi; \
	done; \
	echo "steer needs Python 3.11 to 3.14; tried: $(CANDIDATES)" >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.12 demo" >&2; \
	exit 1

# torch goes first and alone: it is by far the largest download, so its step gets its own line.
# The interpreter is an order-only prerequisite: its timestamp is that of the system's Python.
.venv/.done: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing torch (the large one, this can take minutes) ..."
	@$(PIP_INSTALL) torch
	@echo "installing steer, its dependencies and the developer tools ..."
	@$(PIP_INSTALL) -e '.[train,store,judge,gguf,docs,dev]'
	@touch $@

# Leaves .venv alone, which costs a long download to build: remove that one by hand.
clean:
	rm -rf build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
