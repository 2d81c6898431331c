"""What is generated from the records: tables, numbers in sentences, pictures and the page.

`TABLES` and `PICTURES` list the parts. Every study that is not in `studies.UNFINISHED` is shown: a
new one needs its section, with markers and picture, in `results/README.md` or, if it selects, in
`results/selection.md`. `write` makes all of it, `check` says what does not agree.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from .. import plots, store
from ..demo import build_page
from ..experiments import STEPS, find_reduction, holds_weights
from . import behaviour, pictures, tables
from .compared import load_curves
from .formats import format_mean
from .publish import publish
from .records import load_seed1_record
from .rows import Rows, first_ten_records, load_rows
from .studies import EXPLANATIONS, REPORTS, SELECTION, SHOWN
from .values import facts_table, fill_in, named_values

ROOT = Path(__file__).parent.parent.parent
README, IMAGES = ROOT / "README.md", ROOT / "images"
RESULTS = ROOT / "results"
REPORT_AGAIN = "does not agree with its sources: run python -m src report"
RUN_AGAIN = "does not agree with the records: run the notebook again, or make run"
NOTEBOOKS = {step: ROOT / "Notebooks" / f"MNIST_{step}.ipynb" for step in STEPS}


def log_of_step_3(_: Rows) -> str:
    """The training log that the README shows."""
    return f"```text\n{tables.format_log(load_seed1_record('augmentation'))}\n```"


# The studies of the three steps have one table, and pictures of their own.
OTHER_STUDIES = [name for name in SHOWN if name not in STEPS]


def _study_tables(names: Iterable[str]) -> dict[str, Callable[[Rows], str]]:
    return {name: partial(tables.study_table, name) for name in OTHER_STUDIES if name in names}


TABLES: dict[Path, dict[str, Callable[[Rows], str]]] = {
    README: {
        "results": tables.results_table,
        "original results": tables.original_results_table,
        "hyperparameters": tables.hyperparameters,
        "architecture": tables.architecture,
        "log": log_of_step_3,
    },
    RESULTS / "README.md": {
        "steps": tables.steps_table,
        **_study_tables(REPORTS | EXPLANATIONS),
        "behaviour": tables.behaviour_table,
        "speed": tables.recorded_speed_table,
    },
    RESULTS / "selection.md": {**_study_tables(SELECTION), "resolution": tables.resolution_table},
    RESULTS / "published.md": {"claims": tables.claims_table},
    RESULTS / "numbers.md": {"facts": facts_table, "robustness": tables.robustness_table},
}


@dataclass(frozen=True)
class Picture:
    """How to draw a picture from the rows, and the records that it shows."""

    draw: Callable[[Rows], Figure]
    records: Callable[[Rows], Any]


def _study_records(rows: Rows, *names: str) -> list[dict]:
    return [record for name in names for row in rows[name].values() for record in row.records]


def _study_picture(name: str) -> Picture:
    return Picture(
        draw=lambda rows: pictures.study(name, rows[name]),
        records=lambda rows: _study_records(rows, name),
    )


# The pictures in images/, without their ".png".
PICTURES: dict[str, Picture] = {
    "steps": Picture(pictures.steps, lambda rows: _study_records(rows, *STEPS)),
    "consistency": Picture(
        draw=pictures.consistency,
        records=lambda rows: _study_records(rows, "regularization", "augmentation", "original"),
    ),
    "augmentation": Picture(
        draw=lambda _: plots.curves(load_seed1_record("augmentation")["history"]),
        records=lambda _: load_seed1_record("augmentation"),
    ),
    "epochs": Picture(pictures.epochs, lambda rows: _study_records(rows, "epochs")),
    "shared_errors": Picture(
        draw=lambda rows: pictures.shared_errors(first_ten_records(rows)), records=first_ten_records
    ),
    "robustness": Picture(
        draw=lambda _: pictures.robustness(load_curves()),
        records=lambda _: load_curves(),
    ),
    "parameters": Picture(
        draw=lambda rows: pictures.parameters(rows, tables.load_claims()),
        records=lambda rows: [*_study_records(rows, "parameters"), *tables.load_claims()],
    ),
}
PICTURES |= {name: _study_picture(name) for name in OTHER_STUDIES if name not in PICTURES}


def draw(name: str) -> Figure:
    """A picture of the READMEs, such as "steps" or the name of a study.

    Its label is the digest of the records that it shows.
    """
    rows = load_rows()
    picture = PICTURES[name]
    figure = picture.draw(rows)
    figure.set_label(_digest(picture.records(rows)))
    return figure


def table(name: str) -> str:
    """The table of a study, as Markdown."""
    return tables.study_table(name, load_rows([name]))


def page_numbers(rows: Rows) -> dict[str, str]:
    """The numbers that the page states."""
    row = rows["augmentation"]["augmentation"]
    return {"seeds": str(len(row.last)), "accuracy": f"{format_mean(row.last)} %"}


def misread_images() -> list[int]:
    """The test images that the network of the page misclassifies: those of the recorded run."""
    return [index for index, _ in load_seed1_record("augmentation")["errors"]]


def write() -> None:
    """Publish what was run, and write all that shows it; nothing if MNIST_REDUCED is set.

    New weights of step 3 are measured, which takes half a minute: see `behaviour`.
    """
    if find_reduction():
        message = "MNIST_REDUCED is set: nothing is published or written"
        print(f"{message}; git checkout Notebooks restores ours", file=sys.stderr)
        return
    publish()
    behaviour.update()
    rows = load_rows()
    values = named_values(rows)
    for path, makers in TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name, make in makers.items():
            text = _replace_table(text, name, make(rows), path)
        store.write_text(path, fill_in(text, values, _relative(path)))
    for path in NOTEBOOKS.values():
        _write_numbers(path, values)
    build_page.write(page_numbers(rows), misread_images())
    for name, picture in PICTURES.items():
        figure = picture.draw(rows)
        metadata = {"Software": None, "Records": _digest(picture.records(rows))}
        with store.atomic_write(IMAGES / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", metadata=metadata)
        plt.close(figure)


def _marked(table: str) -> re.Pattern:
    start, end = f"<!-- generated: {table} -->\n", "<!-- end -->"
    return re.compile(rf"(?<={start})(?:(?!<!--).)*(?={end})", re.DOTALL)


def _replace_table(text: str, name: str, table: str, path: Path) -> str:
    text, count = _marked(name).subn(lambda _: f"{table}\n", text)
    if count != 1:
        markers = f"<!-- generated: {name} --> and <!-- end -->"
        fault = f"{_relative(path)}: expected {markers} once, found {count} times"
        advice = "add them, or list the study in studies.UNFINISHED until its runs are recorded"
        raise RuntimeError(f"{fault}: {advice}")
    return text


def _read_notebook(path: Path) -> dict:
    """A notebook as plain data. nbformat would take seconds to import."""
    return json.loads(path.read_text(encoding="utf-8"))


def _write_numbers(path: Path, values: dict[str, str]) -> None:
    """Write the numbers that the sentences of a notebook quote, in the format of Jupyter."""
    notebook = _read_notebook(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = fill_in("".join(cell["source"]), values, _relative(path))
            cell["source"] = text.splitlines(keepends=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    store.write_text(path, text)


def _relative(path: Path) -> str:
    """The path from the repository's folder, as messages name it."""
    return path.relative_to(ROOT).as_posix()


def _digest(records: Any) -> str:
    return store.digest(json.dumps(records, sort_keys=True).encode())


def check() -> list[str]:
    """What does not agree with the records: one line for each table, picture or notebook."""
    rows = load_rows()
    values = named_values(rows)
    faults = [fault for path in TABLES for fault in _check_text(path, rows, values)]
    for name, picture in PICTURES.items():
        if _read_digest(IMAGES / f"{name}.png") != _digest(picture.records(rows)):
            faults.append(f"images/{name}.png")
    if not build_page.is_current(page_numbers(rows), misread_images()):
        faults.append("docs/index.html")
    if not behaviour.is_current():
        faults.append("results/behaviour.json")
    messages = [f"{name} {REPORT_AGAIN}" for name in faults]
    for step in STEPS:
        messages += _check_weights(step)
        messages += _check_notebook(step, rows, values)
    return messages


def _check_weights(step: str) -> list[str]:
    path = store.EVIDENCE / f"{step}.pt"
    if holds_weights(path, load_seed1_record(step)):
        return []
    return [f"{_relative(path)} does not hold the weights of its record: use git checkout"]


def _check_text(path: Path, rows: Rows, values: dict[str, str]) -> list[str]:
    text = path.read_text(encoding="utf-8")
    name = _relative(path)
    faults = [
        f"{name}, table {table!r}"
        for table, make in TABLES[path].items()
        if _marked(table).findall(text) != [make(rows) + "\n"]
    ]
    if fill_in(text, values, name) != text:
        faults.append(f"{name}, a number in a sentence")
    return faults


def _check_notebook(step: str, rows: Rows, values: dict[str, str]) -> list[str]:
    name = _relative(NOTEBOOKS[step])
    cells = _read_notebook(NOTEBOOKS[step])["cells"]
    messages = []
    sentences = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    if [fill_in(text, values, name) for text in sentences] != sentences:
        messages.append(f"{name}, a number in a sentence {REPORT_AGAIN}")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "\n".join(_read_output(output) for output in outputs)
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    studies = re.findall(r"\btable\(\"(\w+)\"\)", code)
    if any(tables.study_table(name, rows) not in shown for name in studies):
        messages.append(f"{name}, a table {RUN_AGAIN}")
    drawn = re.findall(r"\bdraw\(\"(\w+)\"\)", code)
    labels = [output.get("metadata", {}).get("image/png", {}).get("label") for output in outputs]
    digests = [_digest(PICTURES[picture].records(rows)) for picture in drawn]
    if [label for label in labels if label] != digests:
        messages.append(f"{name}, a picture of records {RUN_AGAIN}")
    recorded = _log_lines(tables.format_log(load_seed1_record(step)))
    if not recorded:
        messages.append(f"{name}: no epoch of its log matches the pattern of report._log_lines")
    elif _log_lines(shown) != recorded:
        messages.append(f"{name}, its training log {RUN_AGAIN}")
    return messages


def _read_output(output: dict) -> str:
    """What a cell printed, or the Markdown that it shows."""
    lines = output.get("text") or output.get("data", {}).get("text/markdown", [])
    return "".join(lines)


def _log_lines(printed: str) -> list[tuple[str, ...]]:
    """Epoch, last line of the bar without times, and test line, of every epoch."""
    pattern = r"^(EPOCH: \d+)\n(Loss=[^:]*).*\n(Test set: .*)$"
    return re.findall(pattern, printed, re.MULTILINE)


def _read_digest(path: Path) -> str | None:
    """What `write` stored in a picture; None if there is nothing."""
    try:
        with Image.open(path) as image:
            return image.info["Records"]
    except (OSError, LookupError, ValueError):
        return None
