"""What is generated from the records: the tables in the READMEs, the pictures and the page.

`TABLES` and `PICTURES` list it, every study included: a new one needs its section, with markers and
picture, in `results/README.md`. `write` makes all of it, `check` says what does not agree.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
from matplotlib.figure import Figure
from PIL import Image

from .. import plots, store
from ..demo import page
from ..experiments import STEPS, Experiment, smoke_test_epochs
from . import figures, statistics, tables
from .runner import PLATFORMS, run_key, seed1_record, study_records
from .studies import STUDIES

ROOT = Path(__file__).parent.parent.parent
README, EVIDENCE, IMAGES = ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "images"


def notebook_path(step: str) -> Path:
    """The notebook of a step."""
    return ROOT / "Notebooks" / f"MNIST_{step}.ipynb"


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "results": tables.results_table,
        "hyperparameters": tables.hyperparameters,
        "architecture": tables.architecture,
        "log": lambda: f"```text\n{tables.log(seed1_record('augmentation'))}\n```",
    },
    EVIDENCE: {
        "facts": tables.facts,
        "resolution": tables.resolution_table,
        **{name: partial(tables.study_table, name) for name in STUDIES},
        "claims": tables.claims_table,
        "speed": tables.speed_table,
    },
}


def _study_picture(study: str) -> list:
    splits = {experiment.split for experiment in STUDIES[study].experiments.values()}
    split = splits.pop() if len(splits) == 1 else "the fold"
    label = f"lowest of the last five epochs,\n{split} (%)"
    return [tables.accuracies(study), tables.differences(study), label, STUDIES[study].reference]


def _steps_picture() -> list:
    runs = {}
    for number, records in enumerate(study_records("steps").values(), 1):
        histories = statistics.trained(records)
        runs[f"step {number}"] = [[epoch["test_accuracy"] for epoch in run] for run in histories]
    return [runs]


def _epochs_picture() -> list:
    values = tables.accuracies("epochs")
    values = {label: lowest for label, lowest in values.items() if not math.isnan(lowest[0])}
    return [values, "epochs", "lowest of the last five epochs (%)"]


def _parameters_picture() -> list:
    values = tables.accuracies("parameters", statistics.last)
    claims = [[claim["parameters"], claim["accuracy"]] for claim in tables.load_claims()]
    return [values, "parameters", "test accuracy after the last epoch (%)", claims]


# For each picture in images/, without its ".png": the function that draws it, and its arguments.
PICTURES: dict[str, tuple[Callable[..., Figure], Callable[[], list]]] = {
    "steps": (figures.steps, _steps_picture),
    "lowest": (figures.lowest, lambda: [tables.accuracies("steps")["augmentation"]]),
    "augmentation": (plots.curves, lambda: [seed1_record("augmentation")["history"]]),
    "parameters": (figures.worth, _parameters_picture),
    "epochs": (figures.worth, _epochs_picture),
}
PICTURES |= {
    name: (figures.study, partial(_study_picture, name))
    for name in STUDIES
    if name not in ("steps", "parameters", "epochs")
}


def draw(name: str) -> Figure:
    """A picture of the READMEs, such as "steps" or the name of a study."""
    make, read = PICTURES[name]
    return make(*read())


def page_numbers() -> dict[str, str]:
    """The numbers that the page states."""
    histories = statistics.trained(study_records("steps")["augmentation"])
    accuracy = tables.format_mean([*map(statistics.last, histories)])
    return {"seeds": str(len(histories)), "accuracy": f"{accuracy} %"}


def _marked(table: str) -> re.Pattern:
    start, end = f"<!-- generated: {table} -->\n", "<!-- end -->"
    return re.compile(rf"(?<={start})(?:(?!<!--).)*(?={end})", re.DOTALL)


def publish() -> None:
    """Move what was run here into the evidence: the steps, the studies, a benchmark."""
    for step in STEPS:
        _publish_records("runs", [(STEPS[step], 1)], f"{step}.pt")
    _publish_records("study", [run for study in STUDIES.values() for run in study.all_runs()])
    _publish_file("bench.json")


def _publish_records(
    file: str, runs: Iterable[tuple[Experiment, int]], weights: str | None = None
) -> None:
    keys = {run_key(*run, *platform) for run in runs for platform in PLATFORMS}
    local = store.load_records(file, local=True)
    moved = {key: record for key, record in local.items() if key in keys}
    if moved:
        if weights:  # first: if this is interrupted, the next time completes it
            _publish_file(weights)
        store.save_records(file, moved.values(), local=False)
        store.save_records(file, [], removed=moved)


def _publish_file(name: str) -> None:
    if (made := store.results_path(name, local=True)).exists():
        os.replace(made, store.results_path(name))


def write() -> None:
    """Publish what was run, and write tables, pictures and page; a smoke test changes nothing."""
    if smoke_test_epochs():
        return
    publish()
    for path, made in TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name, make in made.items():
            text, count = _marked(name).subn(make().replace("\\", r"\\") + "\n", text)
            if count != 1:
                place = path.relative_to(ROOT)
                raise RuntimeError(f"{place}: expected the markers of {name!r} once, found {count}")
        path.write_text(text, encoding="utf-8", newline="\n")
    page.write(page_numbers())
    for name, (make, read) in PICTURES.items():
        data = read()
        figure = make(*data)
        metadata = {"Software": None, "Data": json.dumps(_round(data))}
        figure.savefig(IMAGES / f"{name}.png", metadata=metadata)
        plt.close(figure)


def check() -> list[str]:
    """What does not agree with the records: one line for each table, picture or notebook."""
    faults = []
    for path, made in TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name, make in made.items():
            if _marked(name).findall(text) != [make() + "\n"]:
                faults.append(f"{path.relative_to(ROOT)}, table {name!r}")
    for name, (_, read) in PICTURES.items():
        if _drawn(IMAGES / f"{name}.png") != _round(read()):
            faults.append(f"images/{name}.png")
    if not page.is_current(page_numbers()):
        faults.append("docs/index.html")
    fault = "does not agree with the records: run"
    faults = [f"{name} {fault} python -m src report" for name in faults]
    for step in STEPS:
        cells = nbformat.read(notebook_path(step), as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        shown = "\n".join(
            output.get("text") or output.get("data", {}).get("text/markdown", "")
            for output in outputs
        )
        code = "\n".join(cell["source"] for cell in cells)
        studies = re.findall(r"study_table\(\"(\w+)\"\)", code)
        expected = [tables.study_table(name) for name in studies]
        recorded = _log_lines(tables.log(seed1_record(step)))
        same_log = recorded and _log_lines(shown) == recorded
        if not same_log or any(table not in shown for table in expected):
            faults.append(f"{notebook_path(step).name} {fault} it again, or make run")
    return faults


def _log_lines(printed: str) -> list[tuple[str, ...]]:
    """Epoch, last line of the bar without times, and test line, of every epoch."""
    pattern = r"^(EPOCH: \d+)\n(Loss=[^:]*).*\n(Test set: .*)$"
    return re.findall(pattern, printed, re.MULTILINE)


def _drawn(path: Path) -> Any:
    """The numbers that a picture draws, as `write` stored them; None if there are none."""
    try:
        with Image.open(path) as image:
            return json.loads(image.info["Data"])
    except (OSError, LookupError, ValueError):
        return None


def _round(data: Any) -> Any:
    """The data as JSON reads it, to four decimals, more than a picture shows; without times."""
    if isinstance(data, Mapping):
        return {name: _round(part) for name, part in data.items() if name != "seconds"}
    if isinstance(data, (list, tuple)):
        return [_round(part) for part in data]
    return round(data, 4) if isinstance(data, float) else data
