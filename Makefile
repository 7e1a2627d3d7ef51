# Every target sets up what it needs; nothing but git, make and Python >= 3.11 is expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BEAM_VENV := $(VENV)/beam
STORE := stores/embedded
# The versions last tested together on this Python, where they are recorded.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints-$(VERSION).txt)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=-c %)

# Numbers recorded from the original code, for docs/parity.md.
GOLDENS := ../shared/goldens

.PHONY: setup pretrain finetune test test-all test-beam lint parity-report tpu-report results-page clean

setup: $(VENV)/.installed
	@:

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed, $$($(PYTHON) --version) was found; give another one: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: requirements.txt pyproject.toml $(CONSTRAINTS) $(VENV)/.python
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements-dev.txt
	@touch $@

# The main job: a tokenizer and a token store from the text that every installation has on disk,
# then a small GLM pretrained on it. Run again, it goes on where it stopped.
$(STORE)/metadata.json: | $(VENV)/.installed
	$(BIN)/glm-jax prepare embedded --out=$(STORE) --train_tokenizer=4080 --validation_fraction=0.05

pretrain: $(VENV)/.installed $(STORE)/metadata.json
	$(BIN)/glm-jax pretrain --gin_file=configs/runs/demo.gin

# The default task on that model: which library a docstring comes from. By cloze, by cloze from
# random weights, and by a head; with three seeds each, nine trainings of about two minutes. Run
# again, it resumes. SEEDS="()" trains once each, in other folders: RUNS=runs/once.
DOCSTRINGS := data/docstrings
SEEDS := (1, 2, 3)
RUNS := runs/docstrings
FINETUNE := $(BIN)/glm-jax finetune --gin_file=configs/finetune/docstrings.gin \
  --gin.finetune.seeds="$(SEEDS)"

$(DOCSTRINGS)/train.jsonl: | $(VENV)/.installed
	$(BIN)/python -m glm_jax.data.sources.docstring_task $(DOCSTRINGS)

finetune: pretrain $(DOCSTRINGS)/train.jsonl
	$(FINETUNE) --gin.finetune.run_folder=$(RUNS)
	$(FINETUNE) --gin.finetune.run_folder=$(RUNS)_random --gin.finetune.random_weights=True
	$(FINETUNE) --gin.finetune.run_folder=$(RUNS)_head --gin.task.cloze=False
	$(BIN)/python -m glm_jax.cli.compare_runs $(RUNS) $(RUNS)_random $(RUNS)_head
	@echo "confusion matrix  $(RUNS)/confusion.png"

# A test that hangs fails after this many seconds.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --timeout=900

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# Apache Beam has an environment of its own: its pins clash with the rest.
$(BEAM_VENV)/.installed: requirements-beam.txt $(VENV)/.python
	$(PYTHON) -m venv $(BEAM_VENV)
	$(BEAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-beam.txt
	@touch $@

test-beam: $(VENV)/.installed-dev $(BEAM_VENV)/.installed
	BEAM_PYTHON=$(BEAM_VENV)/bin/python $(BIN)/python -m pytest -n0 tests/data/prepare/test_beam.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# docs/parity.md: every recording and how far we are from it; fails when one is not met.
parity-report: $(VENV)/.installed-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.parity.report $(GOLDENS) --out docs/parity.md

# docs/tpu.md: the train step of every configuration in configs/hardware, compiled for its slice.
# Compiles what has changed since: a minute or more each.
tpu-report: $(VENV)/.installed-dev
	$(BIN)/python -m glm_jax.compile.page

# docs/results.md: the published tables, and how each row of GLM is run, from configs/ and docs/tpu/.
results-page: $(VENV)/.installed
	$(BIN)/python -m glm_jax.results.page

clean:
	rm -rf $(VENV) stores runs $(DOCSTRINGS)
