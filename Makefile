# r1: what a developer or a first visitor types. Every target sets up .venv first when it has to.
#
#   make setup [TORCH_INDEX=URL] [PYTHON=python3.12]

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
IN_VENV := . $(VENV)/bin/activate &&

.DEFAULT_GOAL := help
.PHONY: help setup demo r1-zero test check lint bench docs clean

help:            ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*##/  make \1 /p' $(MAKEFILE_LIST)

setup:           ## make .venv with r1 in it (CPU, or GPU where there is one)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" scripts/setup $(TORCH_INDEX)

demo: setup      ## the whole R1 recipe on a small language model: table and report at the end
	@$(IN_VENV) $(MAKE) --no-print-directory -f examples/demo/Makefile demo

r1-zero: setup   ## GRPO straight from a base model, without SFT
	@$(IN_VENV) $(MAKE) --no-print-directory -f examples/demo/Makefile r1-zero

test: setup      ## all tests
	@$(IN_VENV) python -m pytest -n 2 --dist loadfile

check: lint test ## what must hold before a change lands: lint, types, tests

lint: setup      ## ruff and mypy
	@$(IN_VENV) ruff check && ruff format --check --quiet && mypy

bench: setup     ## speed of start-up, scoring and sampling on this machine (MODEL=folder)
	@$(IN_VENV) python bench/speed.py $(MODEL)

docs: setup      ## write the command reference from the settings
	@$(IN_VENV) python docs/generate_cli.py

clean:           ## remove .venv and what tools left behind; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info
