"""Executes the three notebooks headless and in place, with a progress bar on the terminal."""

import os
import re

import nbformat
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from tqdm import tqdm

from .data import reduced
from .experiments import STEPS
from .report import notebook_path


class ExecuteWithProgress(ExecutePreprocessor):
    """nbconvert's preprocessor, with a bar that follows the epochs that the training cell prints."""

    def __init__(self, bar: tqdm):
        super().__init__(timeout=None, coalesce_streams=True)
        self.bar = bar

    def process_message(self, msg, cell, cell_index):
        for epoch in re.findall(r"^EPOCH: (\d+)", msg["content"].get("text", ""), re.MULTILINE):
            self.bar.set_postfix_str(f"epoch {epoch}", refresh=False)
            self.bar.update(int(epoch) - 1 - self.bar.n)
        return super().process_message(msg, cell, cell_index)


def execute_all() -> None:
    """Execute every notebook from top to bottom and, once it has come through, put it in place of the old one.

    A reduced run executes them too, and leaves the files as they were. Raises RuntimeError, in one line, where a cell
    fails; that notebook stays as it was. Where they cannot be written, it says so before anything is trained.
    """
    for path in map(notebook_path, STEPS):
        if not reduced() and not os.access(path, os.W_OK):
            raise RuntimeError(f"{path} cannot be written: no notebook was executed")
    for step, experiment in STEPS.items():
        path = notebook_path(step)
        notebook = nbformat.read(path, as_version=4)
        with tqdm(total=1 if reduced() else experiment.epochs, desc=path.name, unit="epoch") as bar:
            try:
                ExecuteWithProgress(bar).preprocess(notebook, {"metadata": {"path": path.parent}})
            except CellExecutionError as error:
                raise RuntimeError(f"{path.name}: {error.ename}: {error.evalue}") from error
            bar.update(bar.total - bar.n)
        if not reduced():
            nbformat.write(notebook, path)
