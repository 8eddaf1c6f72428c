# Everything starts from a fresh clone with Python 3.11 or later and make. The environment `.venv` builds itself.
#
#   make demo      train a small CLIP on the bundled sample, then classify and search: a few minutes
#   make check     make lint and the quick tests, for use while writing
#   make test      the test suite                make nightly   its long forms, recorded in docs/results/nightly.md
#   make lint      ruff and strict mypy          make bench     speed beside open_clip
#   make figure2   CLIP beside what it was compared with, about an hour and a half; CORPUS=folder adds captioned pictures
#   make approaches   every approach of docs/approaches.md with its control, about two hours
#   make finetuning CORPUS=folder   what fine-tuning gains and loses, about an hour; DIPTYCH_DATA has Fashion-MNIST
#   make verify-weights DIR=folder               check downloaded OpenAI checkpoints
#
# PYTHON=python3.12 chooses another interpreter. TORCH_FLAGS is passed to the installation of torch, for example an
# `--index-url` that pytorch.org names for a CUDA version or for a build without CUDA. The tests run in PROCESSES=2
# processes with one thread each; a process takes up to 4 GB.

PYTHON ?= python3
TORCH_FLAGS ?=
PYTEST_FLAGS ?=
PROCESSES ?= 2
CORPUS ?= corpus
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# One file's tests run in one process, because they share fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
REQUIREMENTS := pyproject.toml constraints.txt
DATASETS := build/datasets
export DIPTYCH_DATA ?= $(CURDIR)/$(DATASETS)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test nightly lint bench figure2 approaches finetuning verify-weights clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(VENV)/.ready-tests

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Diptych needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# torch first and alone, so that TORCH_FLAGS applies to it and to nothing else.
$(VENV)/.ready-core: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -c constraints.txt $(TORCH_FLAGS) torch
	$(PIP) -c constraints.txt -e '.[search]'
	touch $@

# torchvision comes from where torch came from: their builds must match.
$(VENV)/.ready-dev: $(VENV)/.ready-core
	$(PIP) -c constraints.txt $(TORCH_FLAGS) torch torchvision || \
	    echo "torchvision is not beside this torch; it is installed from the default index and may not import"
	$(PIP) -c constraints.txt -e '.[data,heic,train,eval,search,postgres,ray,sweep,serve,dev]'
	touch $@

# What pip does not install, a browser among it. Needs root; without it, it stops with the command to run.
$(VENV)/.ready-tests: scripts/programs.py $(VENV)/.ready-dev
	$(BIN)/python scripts/programs.py
	touch $@

# The tests' one dataset that is not in the package: Debian's copy of Fashion-MNIST, 31 MB, unpacked without root.
$(DATASETS)/fashion-mnist:
	mkdir -p build/debian $(DATASETS)
	cd build/debian && { apt-get download dataset-fashion-mnist || \
	    { apt-get update --quiet=2 && apt-get download dataset-fashion-mnist; } || \
	    { echo "without apt-get: put the four .gz files of Fashion-MNIST into $@"; exit 1; } }
	dpkg --extract build/debian/dataset-fashion-mnist_*.deb build/debian
	mv build/debian/usr/share/datasets/fashion-mnist $@

demo: $(VENV)/.ready-core
	$(BIN)/diptych demo

check: lint $(VENV)/.ready-tests $(DATASETS)/fashion-mnist
	$(PYTEST) -m fast $(PYTEST_FLAGS)

test: $(VENV)/.ready-tests $(DATASETS)/fashion-mnist
	$(PYTEST) $(PYTEST_FLAGS)

nightly: $(VENV)/.ready-tests $(DATASETS)/fashion-mnist
	mkdir -p build
	$(BIN)/python -m pytest -m nightly --junitxml=build/nightly.xml $(PYTEST_FLAGS); \
	status=$$?; $(BIN)/python scripts/nightly_report.py build/nightly.xml docs/results/nightly.md && exit $$status

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/classifier.py
	$(BIN)/python benchmarks/linear_probe.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/tiled_loss.py
	$(BIN)/python benchmarks/open_clip_gradients.py

figure2: $(VENV)/.ready-dev
	$(BIN)/python experiments/figure2.py $(if $(wildcard $(CORPUS)),--corpus $(CORPUS))

approaches: $(VENV)/.ready-dev
	$(BIN)/python experiments/approaches.py

finetuning: $(VENV)/.ready-dev
	@test -d "$(CORPUS)" || { echo "usage: make finetuning CORPUS=folder-of-the-starter-corpus"; exit 2; }
	$(BIN)/python experiments/finetuning.py --corpus "$(CORPUS)" --workers 2

verify-weights: $(VENV)/.ready-core
	@test -n "$(DIR)" || { echo "usage: make verify-weights DIR=folder-with-the-checkpoints"; exit 2; }
	$(BIN)/python scripts/verify_weights.py "$(DIR)"

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)
