# make run   executes the three notebooks in place, then updates the pictures and the READMEs
# make test  runs ruff and the tests
# make clean removes what git does not know: environment, caches, unfinished runs, your own records

PYTHON ?= python3
PY := .venv/bin/python

.PHONY: run test clean

run: .venv/installed
	$(PY) -m src notebooks
	$(PY) -m src report

test: .venv/installed
	$(PY) -m ruff check
	$(PY) -m pytest

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch .venv/installed

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis Notebooks/.ipynb_checkpoints
	rm -rf src/__pycache__ src/evidence/__pycache__ tests/__pycache__
	rm -rf results/.lock results/.checkpoints results/local.jsonl
