"""The generated parts of both READMEs and the pictures in `images/`, from the records; and whether they agree with them."""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import torch
import torchsummary
from matplotlib.figure import Figure
from PIL import Image

from .. import plots
from ..data import Loader, load_mnist, smoke_test_epochs
from ..demo import page
from ..experiments import STEPS, load_model, weights_path
from ..models import MODELS, count_parameters
from ..records import load_records
from ..training import format_epoch, predict
from . import benchmark, figures
from .analysis import (
    TARGETS,
    analysis,
    headline,
    keep_numbers_together,
    last_accuracies,
    markdown_table,
    seed1_record,
    sensitivity,
    smallest_consistent,
    step_3_records,
    study_numbers,
    study_table,
    summary,
    trained,
)
from .studies import CLAIMS, STUDIES, study_records

ROOT = Path(__file__).parent.parent.parent
README, EVIDENCE, IMAGES = ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "images"


def notebook_path(step: str) -> Path:
    """The notebook of a step."""
    return ROOT / "Notebooks" / f"MNIST_{step}.ipynb"


def log(record: Mapping) -> str:
    """What training printed, from the record."""
    batches = -(-record["train_size"] // record["recipe"]["batch_size"])
    return "\n".join(
        format_epoch(epoch, batches, record["test_size"]) for epoch in record["history"]
    )


def results_table() -> str:
    """What the steps reach over their seeds, and what the original's recipes reach."""
    rows = []
    for number, (step, experiment) in enumerate(STEPS.items(), 1):
        ours, original = (summary(study_records(study)[step]) for study in ("steps", "original"))
        parameters = count_parameters(MODELS[experiment.model]())
        rows.append(
            [
                f"{number}: [{step}](Notebooks/MNIST_{step}.ipynb)",
                TARGETS[step][0],
                f"{parameters:,}",
                ours["train"],
                f"**{ours['test']}**",
                ours["lowest"],
                ours["consistent"],
                original["test"] + original["note"],
            ]
        )
    return keep_numbers_together(
        markdown_table(
            [
                "step",
                "target",
                "parameters",
                "train %",
                "test %",
                "lowest of the last five epochs",
                "consistent seeds",
                "original's recipe, test %",
            ],
            rows,
        )
    )


def hyperparameters() -> str:
    """The recipes of the three steps side by side, as they were run: arguments by their names, 1/28 as a fraction."""
    recipes = [seed1_record(step)["recipe"] for step in STEPS]
    return markdown_table(
        ["", *STEPS],
        (
            [name, *(_value(recipe[name]) for recipe in recipes)]
            for name in recipes[0]
            if name not in ("name", "split")
        ),
    )


def _value(value: object) -> str:
    text = (
        ", ".join(f"{name} {item}" for name, item in value.items())
        if isinstance(value, dict)
        else str(value)
    )
    return (
        re.sub(
            r"0\.\d{9,}", lambda match: str(Fraction(match[0]).limit_denominator(100)), text
        ).replace("None", "")
        or "–"
    )


def architecture() -> str:
    """The torchsummary table of the final model."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(MODELS[STEPS["augmentation"].model](), (1, 28, 28), device="cpu")
    return f"```text\n{printed.getvalue().strip()}\n```"


def study_hours() -> str:
    """How many runs are recorded, and how long they took: a sentence."""
    records = load_records("study").values()
    hours = sum(record["seconds"] * record["threads"] for record in records) / 3600
    return f"{len(records)} runs are recorded: {hours:.0f}\u00a0core-hours."


PARTS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "headline": headline,
        "results": results_table,
        "hyperparameters": hyperparameters,
        "analysis": lambda: "\n\n".join(
            f"**Step {i}, {step}.** {analysis(step)}" for i, step in enumerate(STEPS, 1)
        ),
        "architecture": architecture,
        "log": lambda: f"```text\n{log(seed1_record('augmentation'))}\n```",
    },
    EVIDENCE: {
        "studies": study_hours,
        **{name: partial(study_table, name) for name in STUDIES},
        "neighbours": sensitivity,
        "smallest": smallest_consistent,
        "speed": lambda: benchmark.table(benchmark.load()),
    },
}


def draw_fixed(*_weights: str) -> Figure:
    """Test images that the trained model of step 2 misclassifies and that of step 3 classifies correctly."""
    _, (images, labels) = load_mnist()
    before, after = (
        predict(load_model(step), torch.device("cpu"), Loader(images, labels))[0]
        for step in ("regularization", "augmentation")
    )
    fixed = ((before != labels) & (after == labels)).nonzero().flatten()[:24]
    return plots.digits(images[fixed], [f"step 2: {before[i]}\nstep 3: {after[i]}" for i in fixed])


# For each picture in images/, without its ".png", the function that draws it, and the data it draws.
PICTURES: dict[str, tuple[Callable[..., Figure], Callable[[], list]]] = {
    "fixed": (
        draw_fixed,
        lambda: [
            hashlib.sha256(weights_path(step).read_bytes()).hexdigest()
            for step in ("regularization", "augmentation")
        ],
    ),
    "steps": (
        figures.steps,
        lambda: [
            {
                f"step {number}": trained(records)
                for number, records in enumerate(study_records("steps").values(), 1)
            }
        ],
    ),
    "augmentation": (plots.curves, lambda: [seed1_record("augmentation")["history"]]),
    "parameters": (
        figures.worth,
        lambda: [last_accuracies("parameters"), "parameters", "test accuracy (%)", CLAIMS],
    ),
    "epochs": (
        figures.worth,
        lambda: [last_accuracies("epochs"), "epochs", "validation accuracy (%)"],
    ),
    **{
        name: (figures.study, partial(study_numbers, name))
        for name in STUDIES
        if name not in ("steps", "parameters", "epochs")
    },
    "benchmark": (
        plots.bars,
        lambda: [
            benchmark.ratios(benchmark.load(), "augmentation"),
            "time per epoch relative to ours",
        ],
    ),
}


def draw(name: str) -> Figure:
    """A picture of the READMEs, such as "steps" or the name of a study, from the records as they are."""
    make, read = PICTURES[name]
    return make(*read())


def _digest(data: object) -> str:
    return hashlib.sha256(
        re.sub(r'"seconds": [^,}]+', "", json.dumps(data, sort_keys=True)).encode()
    ).hexdigest()  # not drawn


def expected_notebook_text(step: str) -> list[str]:
    """The texts from the records that the outputs of a step's notebook must contain."""
    studies = {
        "basic": ["learning_rate_basic"],
        "augmentation": ["ablation"],
        "regularization": ["parts", "dropout", "step_size", "learning_rate_regularization"],
    }[step]
    return [
        analysis(step, seed1_record(step)),
        *map(study_table, studies),
        *([smallest_consistent()] if step == "augmentation" else []),
    ]


def _pattern(part: str) -> re.Pattern:
    return re.compile(
        rf"(?<=<!-- generated: {part} -->\n)(?:(?!<!--).)*(?=<!-- end -->)", re.DOTALL
    )


def write() -> None:
    """Write the generated parts and the pictures; a smoke test leaves them unchanged."""
    if smoke_test_epochs():
        return
    texts = {path: path.read_text(encoding="utf-8") for path in PARTS}
    for path, parts in PARTS.items():
        for name, make in parts.items():
            texts[path], count = _pattern(name).subn(
                make().replace("\\", r"\\") + "\n", texts[path]
            )
            if count != 1:
                raise RuntimeError(
                    f"{path.relative_to(ROOT)}: expected the markers of the part {name!r} once, found {count}"
                )
    write_page()
    for name, (make, read) in PICTURES.items():
        data = read()
        figure = make(*data)
        figure.savefig(IMAGES / f"{name}.png", metadata={"Software": None, "Data": _digest(data)})
        plt.close(figure)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")


def page_numbers() -> dict[str, str]:
    """The numbers that the page states."""
    records = step_3_records()
    found = summary(records)
    return {
        "seeds": str(len(trained(records))),
        "accuracy": keep_numbers_together(f"{found['test']} %{found['note']}"),
    }


def write_page() -> None:
    """Write `docs/index.html`; a smoke test leaves it unchanged."""
    if not smoke_test_epochs():
        page.write(page_numbers())


def check() -> list[str]:
    """What does not agree with the records: one line for each README part, picture or notebook."""
    texts = {path: path.read_text(encoding="utf-8") for path in PARTS}
    faults = [
        f"{path.relative_to(ROOT)}, part {name!r}"
        for path, parts in PARTS.items()
        for name, make in parts.items()
        if _pattern(name).findall(texts[path]) != [make() + "\n"]
    ]
    faults += [
        f"images/{name}.png"
        for name, (_, read) in PICTURES.items()
        if _stored_digest(name) != _digest(read())
    ]
    faults += [] if page.is_current(page_numbers()) else ["docs/index.html"]
    faults = [
        f"{fault} does not agree with the records: update it with python -m src report"
        for fault in faults
    ]
    for step in STEPS:
        outputs = [
            output
            for cell in nbformat.read(notebook_path(step), as_version=4).cells
            for output in cell.get("outputs", [])
        ]
        shown = "\n".join(
            output.get("text") or output.get("data", {}).get("text/markdown", "")
            for output in outputs
        )
        if _log_lines(shown) != _log_lines(log(seed1_record(step))) or any(
            text not in shown for text in expected_notebook_text(step)
        ):
            faults.append(
                f"{notebook_path(step).name} does not agree with the records: update it with python -m src notebooks"
            )
    return faults


def _stored_digest(name: str) -> str | None:
    try:
        with Image.open(IMAGES / f"{name}.png") as image:
            return image.info.get("Data")
    except FileNotFoundError:
        return None


def _log_lines(printed: str) -> list[str]:
    return re.findall(r"^EPOCH: .*|^Loss=[^:]*|^Test set: .*", printed, re.MULTILINE)
