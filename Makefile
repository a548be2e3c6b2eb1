# Each target sets itself up on a fresh machine: it needs git, make and Python 3.11 or newer with venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
CORES ?= 2

.PHONY: install encoders demo doctor status models embed predict verify scrub compare rekey test \
	test-slow test-slurm lint format bench bench-gpu screenshot lock clean

# The workflow twice: the first makes a small collection and a small model, the second is the real one.
demo: $(VENV)/run.stamp
	$(BIN)/snakemake -s workflow/rules/demo.smk --directory demo --cores $(CORES) --quiet
	$(BIN)/snakemake --directory demo --configfile config/demo.yaml --cores $(CORES) all evaluate
	@echo "The report: demo/results/qc/index.html"

install: $(VENV)/run.stamp

# torchvision and timm, for EchoPrime, PanEcho and any image model of timm: docs/encoders.md.
encoders: $(VENV)/run.stamp
	$(BIN)/pip install --disable-pip-version-check -r requirements/encoders.txt

# The package's commands, which `.venv/bin/echo-embeddings --help` explains: make doctor ARGS="--configfile my.yaml",
# make verify MODEL=vitl ARGS=...
doctor status models embed predict verify scrub compare rekey: $(VENV)/run.stamp
	@$(BIN)/echo-embeddings $@ $(if $(filter verify,$@),$(MODEL)) $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/pytest $(PYTEST_ARGS)

# What takes longer: all kills, corruptions, encoders of true size, every command of the pages.
test-slow: $(VENV)/dev.stamp
	$(BIN)/pytest -m slow $(PYTEST_ARGS)

# On SLURMs of one node that it starts and stops. Needs root and Debian's packages slurm-wlm and munge, which it
# does not install; without them the tests are skipped, and say so. As many clusters as tests: they wait most of the time.
test-slurm: $(VENV)/dev.stamp
	$(BIN)/pytest -n 6 -m slurm -rs tests/slurm $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt workflow

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.convert speed
	$(BIN)/python -m benchmarks.convert memory
	$(BIN)/python -m benchmarks.convert codecs
	$(BIN)/python -m benchmarks.direct speed
	$(BIN)/python -m benchmarks.direct memory
	$(BIN)/python -m benchmarks.direct error
	$(BIN)/python -m benchmarks.encoder --models vitl
	$(BIN)/python -m benchmarks.embed run
	$(BIN)/python -m benchmarks.embed startup
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.qc
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.evaluate

# On a machine with a GPU, in ten minutes; ARGS="--device cpu --quick" tries it without.
bench-gpu: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# The picture in README.md, of the demo's report; needs Chromium (Debian: apt-get install chromium).
screenshot: demo $(VENV)/dev.stamp
	$(BIN)/snakemake --directory demo --configfile config/demo.yaml --cores $(CORES) --quiet --forcerun qc_model
	$(BIN)/python docs/images/screenshot.py demo/results/qc/vit-tiny.html docs/images/report.png

$(VENV)/run.stamp: requirements/run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -r requirements/run.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/encoders.txt $(VENV)/run.stamp
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements/dev.txt
	touch $@

# Resolve the dependencies of pyproject.toml anew. torch stays where it is: its builds follow the GPU's driver.
lock:
	PYTHON=$(PYTHON) requirements/lock.sh

clean:
	rm -rf $(VENV) demo
