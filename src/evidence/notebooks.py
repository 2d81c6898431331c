"""Executes the three notebooks headless and in place."""

import os

import nbformat
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from tqdm import tqdm

from ..data import smoke_test_epochs
from ..experiments import STEPS
from ..records import atomic_write
from .report import notebook_path


def execute_notebooks() -> None:
    """Execute every notebook from top to bottom, and replace it when it has finished; a smoke test leaves the files unchanged.

    Raises RuntimeError, in one line, if a notebook cannot be written (before any is executed), or if a cell fails.
    """
    paths = [notebook_path(step) for step in STEPS]
    for path in paths:
        if not smoke_test_epochs() and not os.access(path, os.W_OK):
            raise RuntimeError(f"{path} cannot be written: no notebook was executed")
    for path in tqdm(paths, unit="notebook"):
        notebook = nbformat.read(path, as_version=4)
        try:
            execute = ExecutePreprocessor(timeout=None, coalesce_streams=True, record_timing=False)
            execute.preprocess(notebook, {"metadata": {"path": path.parent}})
        except CellExecutionError as error:
            raise RuntimeError(
                f"{path.name}: {error.ename}: {(error.evalue.splitlines() or [''])[0]}"
            ) from error
        if not smoke_test_epochs():
            with atomic_write(path) as temporary:
                nbformat.write(notebook, temporary)
