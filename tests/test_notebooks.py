"""The notebooks run headless from anywhere, hold the recipes of the package, and are committed executed."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from src.evidence.report import ROOT, notebook_path
from src.experiments import STEPS, Experiment


def source(step):
    return [cell.source for cell in nbformat.read(notebook_path(step), as_version=4).cells if cell.cell_type == "code"]


def tree():
    """Every file that git knows or would add, with its content; without git, every file except the environment's."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return {path: path.read_bytes() for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_smoke_tests_execute_every_cell_and_change_no_file(tmp_path):
    before = tree()
    shutil.copytree(ROOT / "results", tmp_path / "results")  # the kernels' own, for the checkpoints
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", str(tmp_path),
               "--NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor"]
    environment = {**os.environ, "MNIST_REDUCED": "1", "MNIST_RESULTS": str(tmp_path / "results")}
    processes = [subprocess.Popen([*command, str(notebook_path(step))], cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
                                  text=True) for step in STEPS]
    for process, step in zip(processes, STEPS):
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        cells = nbformat.read(tmp_path / notebook_path(step).name, as_version=4).cells
        printed = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
        assert "EPOCH: 1\nLoss=" in printed and "Test set: Average loss: " in printed
    assert tree() == before


@pytest.mark.parametrize("step", STEPS)
def test_the_recipe_cell_is_the_recipe_of_the_command_line(step):
    (cell,) = [text for text in source(step) if text.startswith("recipe = ")]
    scope = {"Experiment": Experiment}
    exec(cell, scope)
    assert scope["recipe"] == STEPS[step]


@pytest.mark.parametrize("step", STEPS)
def test_the_committed_notebook_is_one_clean_run(step):
    path = notebook_path(step)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert not any("widget" in kind for output in outputs for kind in output.get("data", {}))
    assert path.stat().st_size < 1_000_000
    printed = "".join(output.get("text", "") for output in outputs)
    assert re.findall(r"^EPOCH: (\d+)", printed, re.MULTILINE) == [str(epoch) for epoch in range(1, 16)]
    assert "\r" not in printed and len(printed.splitlines()) < 150
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert "Test set" not in "".join(cell.source for cell in cells)  # the log is the run's own


@pytest.mark.parametrize("step", STEPS)
def test_links_resolve(step):
    text = "".join(cell.source for cell in nbformat.read(notebook_path(step), as_version=4).cells)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert (notebook_path(step).parent / target).exists(), target


def run_set_up(folder, cell):
    """Run a set-up cell as the only cell of a notebook in an empty folder; returns its outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": folder}}).execute()
    return notebook.cells[0].outputs


def test_set_up_without_a_checkout_says_what_to_fill_in(tmp_path):
    (cell,) = {source(step)[0] for step in STEPS}  # the same in all three
    (output,) = run_set_up(tmp_path, cell)
    assert len(output.traceback) == 1 and "\n" not in output.traceback[0] and "fill in REPOSITORY" in output.traceback[0]


def test_set_up_says_which_address_it_could_not_clone(tmp_path):
    (output,) = run_set_up(tmp_path, source("basic")[0].replace('REPOSITORY = ""', 'REPOSITORY = "file:///nowhere"'))
    assert len(output.traceback) == 1 and "could not clone file:///nowhere" in output.traceback[0]


def test_set_up_clones_from_the_address_in_the_form(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no repository to clone: this is a downloaded archive")
    cell = source("basic")[0].replace('REPOSITORY = ""', f'REPOSITORY = "file://{ROOT}"')
    (output,) = run_set_up(tmp_path, cell + "\nimport src.models; print(src.models.__file__)")
    assert output.text.strip() == str(tmp_path / "mnist" / "src" / "models.py")
