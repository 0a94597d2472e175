# Everything needs nothing but Python 3.10 to 3.12: each target first installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test lint train train-smoke tables studies bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

install: .venv/installed  ## make .venv with the package and what its tests need

demo: install  ## a prompt becomes Figure 1: plain, diffusion-negative, and with its caption as negative
	$(BIN)/dnp generate "$$($(BIN)/python -c 'from eval.prompts import *; print(world_prompts()[0])')" --seed 0-3 --out out/demo

test: install  ## the tests
	$(BIN)/python -m pytest

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy guidance samplers captioning eval dnp training

train: install  ## make the embedded model again from nothing (resumable)
	$(BIN)/python -m training

train-smoke: install  ## a few steps of all of it, in about a minute
	$(BIN)/python -m training --smoke --work build/smoke --out build/smoke/model

# On 2 cores; SEEDS=0-31 is the paper's number
SEEDS ?= 0-31
tables: install  ## the world's three categories, all arms at their best scale: out/tables/report.html
	$(BIN)/dnp sweep --prompts world --seeds $(SEEDS) --choose 5,7.5,10 --steps 12 --dns-steps 8 --workers 2 --out out/tables
	$(BIN)/dnp score out/tables
	$(BIN)/dnp report out/tables

studies: install build/wrong-0.0 build/wrong-0.6  ## the runs and figures of docs/ablations.md and docs/when.md: out/studies
	bash docs/studies.sh

build/wrong-%: | install  # the embedded model trained on with another share of wrong captions
	$(BIN)/python -m training --from dnp/embedded --clean 0 --noisy 400 --mismatched $* --work build/work-$* --out $@

bench: install  ## what a guided step costs beside the closure that people write by hand
	$(BIN)/python -m dnp.speed.bench
