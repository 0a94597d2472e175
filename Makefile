# Everything needs nothing but Python 3.10 to 3.12: each target first installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test lint train train-smoke tables results bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

install: .venv/installed  ## make .venv with the package and what its tests need

demo: install  ## a prompt becomes Figure 1: plain, diffusion-negative, and with its caption as negative
	$(BIN)/dnp generate "$$($(BIN)/python -c 'from eval.prompts import attend_and_excite; print(attend_and_excite()[0].text)')" --seed 0-3 --out out/demo

test: install  ## the tests
	$(BIN)/python -m pytest

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy guidance samplers captioning eval dnp training

train: install  ## make the embedded model again from nothing (resumable; npm fetches the drawings)
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	$(BIN)/python -m training

train-smoke: install  ## a few steps of all of it, in about a minute
	$(BIN)/python -m training --smoke --work build/smoke --out build/smoke/model

# All arms at their best scale on the paper's prompts; more seeds: add SEEDS=0-31
SEEDS ?= 0-3
tables: install  ## the paper's Table 2a with its controls: out/tables/report.html and paper.html
	$(BIN)/dnp sweep --prompts attend-and-excite --per-category 50 --seeds $(SEEDS) --choose 3,5,7.5,10 --steps 12 --workers 2 --out out/tables
	$(BIN)/dnp score out/tables
	$(BIN)/dnp report out/tables
	$(BIN)/dnp report out/tables --paper

results: install  ## every study whose numbers stand in README and docs, and their tables: out/results
	$(BIN)/python docs/results.py
	$(BIN)/python docs/peers.py

bench: install  ## what a guided step costs beside the closure that people write by hand
	$(BIN)/python -m dnp.speed.bench
