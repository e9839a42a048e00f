# Everything runs in .venv, which the first target makes; nothing but Python (3.11 or newer) and make is needed.
VENV ?= .venv
# On Windows it takes a make and the shell that come with Git; environments there have another folder of programs.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
PROGRAMS := Scripts
else
PYTHON ?= python3
PROGRAMS := bin
endif
BIN := $(VENV)/$(PROGRAMS)
EXTRAS ?= test
CONSTRAINTS ?= constraints.txt
TORCH ?= $(filter torch==%,$(shell cat constraints.txt))
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
# One process of tests for each core, each of one thread: networks this small gain nothing from more. Numba, which
# scanpy calls, otherwise gives OpenMP all cores in the whole process, and the processes then wait for each other.
PYTEST_ARGS ?= --numprocesses logical --dist loadfile
# A warning fails a test here, but not with other versions of the dependencies (test-lowest, test-newest): what a new
# release warns of is no defect of scratio. Of several -W the last that fits counts, and all count before pyproject.toml's.
WARNINGS ?= -W error -W ignore::DeprecationWarning -W ignore::FutureWarning -W ignore::PendingDeprecationWarning
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
export MPLBACKEND ?= Agg

# Settings of `make demo` on your own cells: make demo DATA=cells.h5ad CONDITION=condition TREATMENT=stim REFERENCE=ctrl
DATA ?=
CONDITION ?=
TREATMENT ?=
REFERENCE ?=
REP ?= X_pca

.PHONY: help setup test test-quick test-lowest test-newest clean-newest coverage audit lint typecheck docs figures docs-screenshots demo bench-accuracy bench-speed bench-estimators bench-device bench-scale bench-cohort bench-analyses bench-stats bench-peers bench-significance-peers bench-outside tutorials pipelines dist clean
help:
	@echo "make demo | test | test-quick | test-lowest | test-newest | coverage | audit | lint | typecheck | bench-accuracy | bench-speed | bench-estimators | bench-device | bench-scale | bench-cohort | bench-analyses | bench-stats | bench-peers | bench-significance-peers | bench-outside | docs | figures | docs-screenshots | tutorials | pipelines | dist | clean"

setup: $(VENV)/.installed-$(EXTRAS)

# torch goes first, so that nothing else chooses its build.
$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(TORCH)
	$(PIP_INSTALL) --editable ".[$*]"
	touch $@

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest $(WARNINGS) $(PYTEST_ARGS)

# What CI runs on macOS and Windows too, three minutes on two cores: training, scoring, saved models, the command line,
# cells in h5ad and zarr, plots. tests/test_packaging.py holds the list to that.
QUICK := platforms saving strangers_files cli containers get pl association summary progress interrupt datasets paths
test-quick: setup
	$(ONE_THREAD) $(BIN)/python -m pytest $(PYTEST_ARGS) $(QUICK:%=tests/test_%.py)

# With the lowest versions that pyproject.toml allows, in an environment of its own.
test-lowest:
	$(MAKE) test WARNINGS= VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

# With the newest versions of everything, on another Python, in an environment of its own: what `pip install scratio`
# gives a new user today. `make clean-newest` first, to see what has been published since.
NEWEST_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3.13) python3.13)
test-newest:
	@"$(NEWEST_PYTHON)" --version || { echo "name a Python 3.13: make test-newest NEWEST_PYTHON=/path/to/python"; exit 1; }
	$(MAKE) test WARNINGS= PYTHON="$(NEWEST_PYTHON)" VENV=.venv-newest CONSTRAINTS=constraints-newest.txt TORCH=torch
	.venv-newest/$(PROGRAMS)/python -m pip list --disable-pip-version-check

clean-newest:
	rm -rf .venv-newest

# Fails below the share of branches that pyproject.toml names.
coverage: setup
	$(ONE_THREAD) $(BIN)/python -m pytest $(WARNINGS) $(PYTEST_ARGS) --cov --cov-report=term-missing:skip-covered

# Known vulnerabilities of what is installed.
audit: setup
	$(PIP_INSTALL) "pip-audit>=2.9"
	$(BIN)/python -m pip_audit --local --skip-editable --progress-spinner off

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

# MELD, with which the demo compares, has pins that exclude current pandas: without them, and in a folder of its own.
MELD := meld==1.0.2 graphtools==2.1.0 pygsp==0.6.1 scprep==1.2.3 tasklogger==1.2.0 Deprecated==1.3.1 decorator==5.3.1 future==1.0.0
$(VENV)/meld/.installed: $(VENV)/.installed-$(EXTRAS)
	$(PIP_INSTALL) --no-deps --upgrade --target $(VENV)/meld $(MELD)
	touch $@

demo: setup $(VENV)/meld/.installed
	PYTHONPATH=$(VENV)/meld $(BIN)/python demo/run.py $(if $(DATA),--data "$(DATA)" --condition-key "$(CONDITION)" --treatment "$(TREATMENT)" \
		--reference "$(REFERENCE)" --use-rep "$(REP)")

# Where an estimator may fail: real labels, conditions far apart, edges, heavy tails, and coverage of the standard errors.
# Hours; the folder of the data is SCRATIO_DATA. BENCH_ARGS=--quick for a minute.
bench-accuracy: setup
	for name in real_labels far_apart heavy_tails standard_errors; do \
		$(BIN)/python benchmarks/$$name.py $(BENCH_ARGS) || exit 1; done

# A whole analysis beside boosting, MELD and Milo, hours; BENCH_ARGS=--quick for seconds, BENCH_ARGS="--old PYTHON" for
# the scratio of another environment on the same cells.
bench-speed: setup
	$(BIN)/python benchmarks/speed.py $(BENCH_ARGS)

# Cells per second of every estimator; BENCH_ARGS=--quick for two minutes.
bench-estimators: setup
	$(BIN)/python benchmarks/estimators.py $(BENCH_ARGS)

# Training and scoring on the accelerator of this machine and on its CPU; BENCH_ARGS=--quick for seconds.
bench-device: setup
	$(BIN)/python benchmarks/device.py $(BENCH_ARGS)

# From 10^4 to 10^7 cells on disk, half an hour and 3 GB of temporary files; BENCH_ARGS=--quick for a minute.
bench-scale: setup
	$(BIN)/python benchmarks/scale.py $(BENCH_ARGS)

# 200,000 cells of 140 donors from a file, half an hour; BENCH_ARGS=--quick for a minute.
bench-cohort: setup
	$(BIN)/python benchmarks/large_cohort.py $(BENCH_ARGS)

# The paper's benchmarks with every peer, hours; BENCH_ARGS=--quick for a minute. For the MrVI of today, which needs
# Python 3.12 or newer, after `make test-newest`:
#   .venv-newest/bin/python benchmarks/differential_abundance_counts.py --methods mrvi mrvi-early
bench-peers: setup
	for name in gaussians mutual_information non_gaussian differential_abundance differential_abundance_counts fdrl; do \
		$(BIN)/python benchmarks/$$name.py $(BENCH_ARGS) || exit 1; done

# The analyses on real cells, an hour or so; the folder of the data is SCRATIO_DATA. BENCH_ARGS=--quick for a minute.
bench-analyses: setup
	for name in batch_correction combinations donors driver_genes few_samples replicates; do \
		$(BIN)/python benchmarks/$$name.py $(BENCH_ARGS) || exit 1; done

# Error rates and power of the test across samples, two hours on one core.
bench-stats: setup
	$(BIN)/python benchmarks/significance.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/significance_designs.py $(BENCH_ARGS)

# The test across samples beside peers on the same cohorts. Each peer has an environment of its own, pinned by the file
# beside its script; pertpy needs Python 3.12.
PEERS ?= milo_edgepython milo_pertpy cna kompot
PYTHON_OF_milo_pertpy ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3.12) python3.12)
PYTHON_OF_scib ?= $(PYTHON_OF_milo_pertpy)
define PEER_ENVIRONMENT
	"$(or $(PYTHON_OF_$*),$(PYTHON))" -m venv .venv-peer-$*
	.venv-peer-$*/$(PROGRAMS)/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
endef
.venv-peer-%/.installed: benchmarks/significance_peers/%.txt
	$(PEER_ENVIRONMENT)
.venv-peer-%/.installed: benchmarks/outside_peers/%.txt
	$(PEER_ENVIRONMENT)

# Suites that others made, beside their peers: mutual information, differential abundance, batch scores, density ratios,
# samples, seconds. A week on one core; BENCH_ARGS=--quick for minutes. OUTSIDE names some of the benchmarks,
# OUTSIDE_PEERS some of the environments: a benchmark leaves out what has none, and says so. Milo's simulations lie in the
# folder that SCRATIO_MILO names, the tasks of the judges in that of SCRATIO_BENCH.
OUTSIDE ?= information abundance batch ratios samples seconds
OUTSIDE_PEERS ?= bmi scib densratio sbi boosters tabular pot $(PEERS)
bench-outside: setup $(VENV)/meld/.installed $(OUTSIDE_PEERS:%=.venv-peer-%/.installed)
	for name in $(OUTSIDE); do $(BIN)/python benchmarks/outside_$$name.py $(BENCH_ARGS) || exit 1; done

bench-significance-peers: setup $(PEERS:%=.venv-peer-%/.installed)
	$(BIN)/python benchmarks/significance_compared.py $(BENCH_ARGS)

# Needs no network once its packages are installed, and neither do the pages.
docs:
	$(MAKE) setup EXTRAS=docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Draws the committed images of the pages anew, ten minutes; FIGURES="pl.violin pl.regions" for some of them. The cells
# are downloaded, or lie in the folder that SCRATIO_CACHE names.
FIGURES ?=
figures:
	$(MAKE) setup EXTRAS=notebooks
	$(ONE_THREAD) $(BIN)/python docs/make_figures.py $(FIGURES)

# Ten pages of `make docs`, wide and narrow, in docs/_build/screenshots; needs Chromium.
docs-screenshots:
	$(BIN)/python docs/screenshots.py

# Makes the notebooks anew from their text and executes them; TUTORIALS="sachs kang" for some of them. The cells are
# downloaded, or lie in the folder that SCRATIO_CACHE names.
TUTORIALS ?= $(basename $(notdir $(wildcard tutorials/*.py)))
tutorials:
	$(MAKE) setup EXTRAS=notebooks
	for name in $(TUTORIALS); do \
		$(BIN)/python -m jupytext --quiet --to ipynb tutorials/$$name.py && \
		$(BIN)/python -m nbconvert --to notebook --inplace --execute tutorials/$$name.ipynb || exit 1; done

# Runs the Snakemake example on simulated cells, in build/pipelines. Snakemake has an environment of its own, and finds
# the command `scratio` in the PATH.
.venv-snakemake/.installed:
	$(PYTHON) -m venv .venv-snakemake
	.venv-snakemake/$(PROGRAMS)/python -m pip install --quiet --disable-pip-version-check "snakemake>=9,<10"
	touch $@

pipelines: setup .venv-snakemake/.installed
	rm -rf build/pipelines
	$(BIN)/python packaging/example_cells.py build/pipelines/cells/example.h5ad
	PATH="$(abspath $(BIN)):$$PATH" .venv-snakemake/$(PROGRAMS)/snakemake --cores 2 --directory build/pipelines \
		--snakefile packaging/snakemake/Snakefile --configfile packaging/snakemake/config.yaml
	cat build/pipelines/logs/da/example.log

# Wheel and source archive, checked; then the demo with the wheel in an environment that has nothing else.
dist:
	$(MAKE) setup EXTRAS=release
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/$(PROGRAMS)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH)
	.venv-wheel/$(PROGRAMS)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	.venv-wheel/$(PROGRAMS)/scratio --version
	.venv-wheel/$(PROGRAMS)/python -c "import importlib.resources as r; assert r.files('scratio').joinpath('py.typed').is_file()"
	.venv-wheel/$(PROGRAMS)/python -I demo/run.py

clean:
	rm -rf $(VENV) .venv-* build dist docs/_build docs/api/generated docs/tutorials
