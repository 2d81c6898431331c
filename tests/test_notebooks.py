"""The notebooks run wherever they are opened, hold the package's recipes, and are one clean run."""

import asyncio
import re
import shutil
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient

from src.evidence.report import NOTEBOOKS, ROOT
from src.experiments import STEPS
from src.recipes import Experiment


def read(step):
    return nbformat.read(NOTEBOOKS[step], as_version=4)


def source(step):
    return [cell.source for cell in read(step).cells if cell.cell_type == "code"]


def tree():
    """Every file of the checkout with its content, except environment, caches and .git.

    Nor is `results/local` read, where a study may record its runs meanwhile.
    """
    ignored = {".venv", ".git", "__pycache__", ".ruff_cache", ".hypothesis"}
    paths = [path for path in ROOT.rglob("*") if not ignored & set(path.relative_to(ROOT).parts)]
    own = ROOT / "results" / "local"
    return {path: path.read_bytes() for path in paths if path.is_file() and own not in path.parents}


@pytest.fixture
def git():
    """Skips without a repository that git may read."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    if not shutil.which("git") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("git cannot read this folder: a downloaded archive, or another user's")


# Each notebook from another folder of the checkout, and one under another kernel's name.
PLACES = {"basic": "Notebooks", "regularization": ".", "augmentation": "src/evidence"}


async def execute(notebook, folder, **options):
    """Run a notebook in a folder; returns the outputs of its cells."""
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, kernel_name="python3", resources=resources, **options)
    await client.async_execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_smoke_tests_execute_every_cell_from_anywhere_and_change_no_file(
    tmp_path, smoke, monkeypatch
):
    monkeypatch.setenv("MNIST_RESULTS", str(tmp_path))  # for checkpoints; the evidence stays
    before, notebooks = tree(), {step: read(step) for step in PLACES}
    notebooks["basic"].metadata.kernelspec = {"name": "my-env", "display_name": "mine"}
    for notebook in notebooks.values():  # fewer images, as the runs of a smoke test have
        for cell in notebook.cells:
            cell.source = cell.source.replace("load_mnist()", "load_mnist(limit=2000)")
            cell.source = cell.source.replace("[:1000]", "[:100]")

    async def execute_side_by_side():
        folders = [ROOT / place for place in PLACES.values()]
        return await asyncio.gather(*map(execute, notebooks.values(), folders))

    for outputs in asyncio.run(execute_side_by_side()):
        printed = "".join(output.get("text", "") for output in outputs)
        assert "Smoke test: " in printed and "EPOCH: 1\n" in printed and "Test set: " in printed
    assert tree() == before
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("step", STEPS)
def test_the_recipe_cell_is_the_recipe_of_the_command_line(step):
    (cell,) = [text for text in source(step) if text.startswith("recipe = ")]
    scope = {"Experiment": Experiment}
    exec(cell, scope)
    assert scope["recipe"] == STEPS[step]


@pytest.mark.parametrize("step", STEPS)
def test_the_committed_notebook_is_one_clean_run(step):
    path, notebook = NOTEBOOKS[step], read(step)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 30, "a notebook has at most 30 cells: extend one"
    assert path.stat().st_size < 900_000, "the notebook is too large"
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "not every cell has run, in order: make run"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert not any("widget" in kind for kind in kinds) and kinds.count("image/png") >= 3
    printed = "".join(output.get("text", "") for output in outputs)
    epochs = re.findall(r"^EPOCH: (\d+)", printed, re.MULTILINE)
    assert epochs == [str(epoch) for epoch in range(1, 16)]
    assert "\r" not in printed and "Smoke test" not in printed
    package = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("src/*.py"))
    shown = [cell for cell in cells if "getsource, " in cell.source or "getsource(" in cell.source]
    assert shown
    for cell in shown:  # the source that is shown is that of the package
        for part in cell.outputs[0].text.split("-" * 64)[0].split("\n\n\n"):
            assert part.strip() in package, "it shows an older source: make run"
    for output, following in zip(outputs, [*outputs[1:], {}]):  # each figure has its caption
        if "image/png" in output.get("data", {}):
            assert "image/png" in output.metadata, "a figure without caption: plots.show(figure, …)"
            caption = output.metadata["image/png"]["alt"]
            assert following.data["text/markdown"] == f"*{caption}*" and caption.endswith(".")
    tags = [cell.metadata.get("tags", []) for cell in cells]
    assert tags.count(["parameters"]) == 1  # where papermill puts its values
    # What Jupyter itself writes, so that opening the notebook does not change it.
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert notebook.metadata.kernelspec == kernel


def run_set_up(folder, *addresses, then=""):
    """Run the set-up cell with each address in its form; returns what each printed, and errors."""
    (cell,) = {source(step)[0] for step in STEPS}  # the same in all three
    cells = []
    for address in addresses:
        filled = cell.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"')
        cells.append(nbformat.v4.new_code_cell(f"{filled}\n{then}"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    asyncio.run(execute(notebook, folder, allow_errors=True))
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    outputs = [output for cell in cells for output in cell.outputs]
    return printed, [output for output in outputs if output.output_type == "error"]


def test_set_up_without_a_repository_says_what_to_fill_in(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "wrong")], check=True)
    wrong = (tmp_path / "wrong").as_uri()  # valid, but another repository
    work = tmp_path / "work"
    (work / "src").mkdir(parents=True)  # a foreign folder of that name
    _, errors = run_set_up(work, "", "file:///nowhere", wrong)
    (work / "mnist-series" / "mine.txt").touch()
    _, again = run_set_up(work, wrong)
    assert (work / "mnist-series" / "mine.txt").exists()  # a foreign folder is not touched
    for error in (*errors, *again):
        assert error.ename == "SystemExit" and "enter its address in the form" in error.evalue
    assert (len(errors), len(again)) == (3, 1)


def test_set_up_clones_from_the_address_in_the_form_once(tmp_path, git):
    expected = tmp_path / "mnist-series" / "src" / "evidence" / "studies.py"
    addresses = ROOT.as_uri(), "file:///nowhere"  # the second time, the clone is there
    printed, errors = run_set_up(tmp_path, *addresses, then="print((root / KEY).resolve())")
    assert not errors and all(str(expected.resolve()) in text for text in printed)


def find_answers(step):
    """The folded answers to the exercises of a notebook."""
    text = "\n\n".join(cell.source for cell in read(step).cells)
    pattern = r"<details><summary>Answer</summary>\n\n(.*?)\n\n</details>"
    return re.findall(pattern, text, re.DOTALL)


ANSWERS_WITH_RUNS = {"basic": 2, "regularization": 2, "augmentation": 2}  # after the first


@pytest.mark.parametrize("number, step", list(enumerate(STEPS, 1)))
def test_every_answer_quotes_what_its_exercise_reached(number, step):
    _, *answers = find_answers(step)
    assert len(answers) == ANSWERS_WITH_RUNS[step], "each answer but the first quotes its run"
    for exercise, answer in enumerate(answers, 2):
        assert f"**<!-- exercise {number}.{exercise}/last -->" in answer


@pytest.mark.parametrize("step", STEPS)
def test_the_first_exercise_is_checked_by_its_cell(step, mnist, capsys):
    imports, check = source(step)[1], source(step)[-1]
    assert check.startswith("# Exercise 1: write the body, and run this cell.\ndef ")
    solution = find_answers(step)[0].removeprefix("```python\n").removesuffix("```")
    stub = re.search(r"^def .*?(?=\n\n\n)", check, re.MULTILINE | re.DOTALL)[0]
    scope = {"train_images": mnist[0][0], "train_labels": mnist[0][1]}
    exec(imports.removeprefix("%matplotlib inline\n"), scope)
    for body, verdict in ((stub, "Not yet: "), (solution, "Right: ")):
        exec(check.replace(stub, body), scope)
        assert capsys.readouterr().out.splitlines()[-1].startswith(verdict)
