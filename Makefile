# make run   executes the three notebooks in place, then publishes their runs: tables, pictures, page
# make test  runs ruff and the tests
# make clean removes the environment and the caches; what you ran in results/local stays

PYTHON ?= python3
PY := .venv/bin/python

.PHONY: run test clean

run: .venv/installed
	$(PY) -m nbconvert --execute --to notebook --inplace --ExecutePreprocessor.kernel_name=python3 \
		--ExecutePreprocessor.record_timing=False \
		--NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
		Notebooks/MNIST_basic.ipynb Notebooks/MNIST_regularization.ipynb \
		Notebooks/MNIST_augmentation.ipynb
	$(PY) -m src report

test: .venv/installed
	$(PY) -m ruff check
	$(PY) -m ruff format --check src tests
	$(PY) -m pytest

# An unfinished environment is made anew. For another Python, run make clean first.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"Python 3.11 or newer is needed, for example: make PYTHON=python3.12")'
	test -f .venv/installed || $(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch .venv/installed

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis Notebooks/.ipynb_checkpoints
	rm -rf src/__pycache__ src/demo/__pycache__ src/evidence/__pycache__ tests/__pycache__
	rm -rf results/.lock
