# Everything runs in .venv, which the first target makes; nothing but Python (3.11 or newer) and make is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= test
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export MPLBACKEND ?= Agg

# Settings of `make demo` on your own cells: make demo DATA=cells.h5ad CONDITION=condition TREATMENT=stim REFERENCE=ctrl
DATA ?=
CONDITION ?=
TREATMENT ?=
REFERENCE ?=
REP ?= X_pca

.PHONY: help setup test lint typecheck docs docs-setup demo bench-speed bench-scale bench-analyses bench-stats bench-peers tutorials clean
help:
	@echo "make demo | test | lint | typecheck | bench-speed | bench-scale | bench-analyses | bench-stats | bench-peers | docs | tutorials | clean"

setup: $(VENV)/.installed-$(EXTRAS)

# torch goes first, so that nothing else chooses its build.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) --editable ".[$*]"
	touch $@

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

demo: setup
	$(BIN)/python demo/run.py $(if $(DATA),--data "$(DATA)" --condition-key "$(CONDITION)" --treatment "$(TREATMENT)" \
		--reference "$(REFERENCE)" --use-rep "$(REP)")

# BENCH_ARGS=--quick for a run of a minute.
bench-speed: setup
	$(BIN)/python benchmarks/speed.py $(BENCH_ARGS)

# From 10^4 to 10^7 cells on disk, half an hour and 3 GB of temporary files; BENCH_ARGS=--quick for a minute.
bench-scale: setup
	$(BIN)/python benchmarks/scale.py $(BENCH_ARGS)

# The paper's benchmarks with every peer, hours; BENCH_ARGS=--quick for a minute.
bench-peers: setup
	for name in gaussians mutual_information non_gaussian differential_abundance fdrl; do \
		$(BIN)/python benchmarks/$$name.py $(BENCH_ARGS) || exit 1; done

# The analyses on real cells, an hour or so; the folder of the data is SCRATIO_DATA. BENCH_ARGS=--quick for a minute.
bench-analyses: setup
	for name in batch_correction combinations donors driver_genes replicates; do \
		$(BIN)/python benchmarks/$$name.py $(BENCH_ARGS) || exit 1; done

# Error rates and power of the tests across samples, and coverage of the standard errors.
bench-stats: setup
	$(BIN)/python benchmarks/significance.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/standard_errors.py $(BENCH_ARGS)

docs:
	$(MAKE) setup EXTRAS=docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Executes the tutorials in place; SCRATIO_DATA is the folder of the real data sets.
tutorials:
	$(MAKE) setup EXTRAS=notebooks
	$(BIN)/python -m nbconvert --to notebook --inplace --execute tutorials/*.ipynb

clean:
	rm -rf $(VENV) build dist docs/_build docs/tutorials
