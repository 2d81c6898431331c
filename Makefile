# make run   executes the three notebooks in place, then refreshes the pictures and the README
# make test  runs the tests
# make clean removes what git does not know: environment, caches, unpacked data

PYTHON ?= python3
PY := .venv/bin/python

.PHONY: run test clean

run: .venv/installed
	$(PY) -m src notebooks
	$(PY) -m src report

test: .venv/installed
	$(PY) -m pytest

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch .venv/installed

clean:
	rm -rf .venv .pytest_cache .hypothesis src/__pycache__ tests/__pycache__ Notebooks/.ipynb_checkpoints
	rm -rf results/.lock results/.checkpoints data/MNIST/raw/*-ubyte *.onnx
