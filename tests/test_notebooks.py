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
from src.records import load_records


def source(step):
    return [
        cell.source
        for cell in nbformat.read(notebook_path(step), as_version=4).cells
        if cell.cell_type == "code"
    ]


def tree():
    """Every file that git knows or would add, with its content; without git, every file except the environment's."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or [
        path for path in ROOT.rglob("*") if ".venv" not in path.parts
    ]
    return {
        path: path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_smoke_tests_execute_every_cell_and_change_no_file(tmp_path):
    before = tree()
    shutil.copytree(ROOT / "results", tmp_path / "results")  # the kernels' own, for the checkpoints
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--output-dir",
        str(tmp_path),
        "--NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor",
    ]
    environment = {**os.environ, "MNIST_REDUCED": "1", "MNIST_RESULTS": str(tmp_path / "results")}
    processes = [
        subprocess.Popen(
            [*command, str(notebook_path(step))],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for step in STEPS
    ]
    for process, step in zip(processes, STEPS):
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        cells = nbformat.read(tmp_path / notebook_path(step).name, as_version=4).cells
        printed = "".join(
            output.get("text", "") for cell in cells for output in cell.get("outputs", [])
        )
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
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr" for output in outputs
    )
    assert not any("widget" in kind for output in outputs for kind in output.get("data", {}))
    assert path.stat().st_size < 1_000_000
    printed = "".join(output.get("text", "") for output in outputs)
    assert re.findall(r"^EPOCH: (\d+)", printed, re.MULTILINE) == [
        str(epoch) for epoch in range(1, 16)
    ]
    assert "\r" not in printed and len(printed.splitlines()) < 150
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert "Test set" not in "".join(cell.source for cell in cells)  # the log is the run's own


@pytest.mark.parametrize("step", STEPS)
def test_links_resolve(step):
    text = "".join(cell.source for cell in nbformat.read(notebook_path(step), as_version=4).cells)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "https://" in target or (notebook_path(step).parent / target).exists(), target


def run_set_up(folder, address, then=""):
    """Run the set-up cell as the only cell of a notebook in an empty folder, with an address in its form; returns the outputs."""
    (cell,) = {source(step)[0] for step in STEPS}  # the same in all three
    filled = cell.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{filled}\n{then}")])
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": folder}}).execute()
    return notebook.cells[0].outputs


@pytest.mark.parametrize("address", ["", "file:///nowhere"])
def test_set_up_without_a_checkout_says_what_to_fill_in(address, tmp_path):
    *printed, error = [
        output for output in run_set_up(tmp_path, address) if output.get("name") != "stderr"
    ]
    assert (
        f"fatal: repository '{address}' does not exist" in printed[0].text
        or "does not appear to be a git" in printed[0].text
    )
    assert error.ename == "SystemExit" and error.evalue.startswith(
        "Nothing was cloned: enter the repository's address"
    )


def test_set_up_clones_from_the_address_in_the_form(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no repository to clone: this is a downloaded archive")
    outputs = run_set_up(
        tmp_path,
        f"file://{ROOT}",
        "import src.models; print(os.path.realpath(src.models.__file__))",
    )
    assert outputs[-1].text.strip() == str(tmp_path / "mnist" / "src" / "models.py")


@pytest.mark.parametrize("number, step", list(enumerate(STEPS, 1)))
def test_the_answers_of_the_exercises_hold_what_was_measured(number, step):
    text = nbformat.read(notebook_path(step), as_version=4).cells[-1].source
    answers = re.findall(
        r"<details><summary>Answer</summary>\n\n(.*?)\n\n</details>", text, re.DOTALL
    )
    records = {record["recipe"]["name"]: record for record in load_records("exercises").values()}
    assert len(answers) == 3
    for exercise, answer in enumerate(answers, 1):
        record = records[f"exercise {number}.{exercise}"]
        assert record["seed"] == 1 and record["recipe"]["split"] == "validation"
        measured = {
            f"{value:.2f}"
            for epoch in record["history"]
            for part, value in epoch.items()
            if part.endswith("_accuracy")
        }
        assert f"**{record['history'][-1]['test_accuracy']:.2f}\u00a0%**" in answer
        assert {*re.findall(r"\d\d\.\d\d", answer)} <= measured
