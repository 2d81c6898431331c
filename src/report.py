"""The README's generated parts and the pictures in `images/`, from the records; and whether they still agree."""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import torchsummary
from matplotlib.figure import Figure
from PIL import Image

from . import bench, plots
from .data import MEAN, STD, reduced
from .experiments import STEPS
from .findings import (finished, gain, gains, gap, last_accuracies, over_seeds, precision_gap, shown, spread, steady_from,
                       sweep_table, worst_of_last_five)
from .models import MODELS, count_parameters
from .studies import STUDIES
from .training import epoch_text

ROOT = Path(__file__).parent.parent
README, IMAGES = ROOT / "README.md", ROOT / "images"


def summary(step: str) -> str:
    """The torchsummary table of a step's model, as `torchsummary.summary` prints it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(MODELS[STEPS[step].model](), (1, 28, 28), device="cpu")
    return printed.getvalue().strip("\n")


def parameters(step: str) -> str:
    """The parameter count of a step's model."""
    return f"{count_parameters(MODELS[STEPS[step].model]()):,}"


def log(record: Mapping) -> str:
    """What training printed, from the record."""
    batches = -(-record["train_size"] // record["recipe"]["batch_size"])
    return "\n".join(epoch_text(epoch, batches, record["test_size"]) for epoch in record["history"])


# --- The README's parts -------------------------------------------------------------------------------------------

def headline() -> str:
    histories = [record["history"] for record in finished("steps")["augmentation"]]
    steady, worst = [steady_from(history) for history in histories], [worst_of_last_five(history) for history in histories]
    return (f"**{spread(last_accuracies('steps')['augmentation'])} %** of the test images are read correctly after "
            f"{len(histories[0])} epochs by a network of {parameters('augmentation')} parameters (mean ± standard deviation "
            f"over {len(histories)} seeds). The worst of the last five epochs of all seeds is {min(worst):.2f} %"
            + (f"; from epoch {max(steady)} on, every epoch of every seed is at 99.40 % or above." if all(steady) else "."))


TARGETS = {
    "basic": "a skeleton that learns; no batch normalisation, dropout, augmentation or scheduler",
    "regularization": "99.4 % within 10,000 parameters, with batch normalisation, dropout and a learning-rate scheduler",
    "augmentation": "99.4 % in every one of the last five epochs with fewer than 8,000 parameters, by image augmentation",
}


def analysis(step: str) -> str:
    """What a step's measurements say, in a sentence or two for the table."""
    ended = gap(*(record["history"] for record in finished("steps")[step]))
    if step == "basic":
        return f"It learns. {ended} Next: regularise, and lower the learning rate as training goes on."
    if step == "augmentation":
        first, *_, last = STUDIES["path"].experiments
        brought = gains("path")
        noise = " (within the noise)"
        changes = [f"{change.removeprefix('+ ').removesuffix(' (step 3)')} {gained.removesuffix(noise)}"
                   for change, gained in brought.items()]
        return (f"On the validation split, one change after the other: {', '.join(changes)}. "
                f"Taken alone, {sum(gained.endswith(noise) for gained in brought.values())} of the {len(brought)} are within the "
                f"noise; together they bring {gain('path', last, first)}. {ended}")
    without = {"batch normalisation": "no batch norm", "the scheduler": "no scheduler", "dropout": "no dropout"}
    brought = [f"{part} {gain('parts', 'all three', label)}" for part, label in without.items()]
    return f"On the validation split: {', '.join(brought)}. {ended}"


def results_table() -> str:
    rows = ["| step | target | result | with the recipe of the original | analysis |", "| --- | --- | --- | --- | --- |"]
    for step in STEPS:
        name = notebook_path(step).stem
        rows.append(f"| [{name}](Notebooks/{name}.ipynb), {parameters(step)} parameters | {TARGETS[step]} "
                    f"| {over_seeds('steps', step)} | {over_seeds('original', step)} | {analysis(step)} |")
    return "\n".join(rows)


def hyperparameters() -> str:
    def text(value: object) -> str:
        if isinstance(value, tuple):
            return f"({', '.join(map(text, value))})"
        if isinstance(value, float) and len(str(value)) > 8:
            return str(Fraction(value).limit_denominator(100))
        return str(value)

    def arguments(name: str | None, values: Mapping | None) -> str:
        if not name:
            return "none"
        return f"`{name}`: {', '.join(f'{key} {text(value)}' for key, value in values.items())}".removesuffix(": ")

    described: dict[str, Callable] = {
        "model": lambda step: arguments(step.model, step.model_args),
        "epochs": lambda step: step.epochs,
        "batch size": lambda step: step.batch_size,
        "optimizer": lambda step: arguments(step.optimizer, step.optimizer_args),
        "scheduler": lambda step: arguments(step.scheduler, step.scheduler_args),
        "averaging of weights": lambda step: f"exponential, decay {step.ema_decay} per batch" if step.ema_decay else "none",
        "images": lambda step: f"normalised with mean {MEAN}, standard deviation {STD}" if step.normalized else "in [0, 1]",
        "augmentation": lambda step: arguments(step.augmentation and "RandomAffine", step.augmentation),
        "loss": lambda step: "negative log-likelihood",
        "seed": lambda step: shown(step.name)["seed"],
        "precision": lambda step: shown(step.name)["precision"],
        "memory format": lambda step: "channels last" if shown(step.name).get("channels_last") else "channels first",
    }
    rows = [f"| | {' | '.join(STEPS)} |", "| --- |" + " --- |" * len(STEPS)]
    rows += [f"| {name} | {' | '.join(str(describe(step)) for step in STEPS.values())} |"
             for name, describe in described.items()]
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "results": results_table,
    "hyperparameters": hyperparameters,
    "architecture": lambda: f"```text\n{summary('augmentation')}\n```",
    "log": lambda: f"```text\n{log(shown('augmentation'))}\n```",
    "dropout": lambda: sweep_table("dropout"),
    "step_size": lambda: sweep_table("step_size"),
    "precision": precision_gap,
    "performance": lambda: bench.table(json.loads(bench.RECORD.read_text(encoding="utf-8"))),
}


# --- The pictures -------------------------------------------------------------------------------------------------

def _curve(record: Mapping) -> list[dict]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in record["history"]]


# Each picture's function of `plots`, and its arguments.
PICTURES: dict[str, tuple[Callable[..., Figure], Callable[[], tuple]]] = {
    "steps.png": (plots.spread, lambda: ({step: [_curve(record) for record in runs]
                                          for step, runs in finished("steps").items()},)),
    "augmentation.png": (plots.curves, lambda: (_curve(shown("augmentation")),)),
    "path.png": (plots.path, lambda: (last_accuracies("path"), gains("path"))),
    "sweeps.png": (plots.sweeps, lambda: ({STUDIES[study].setting: last_accuracies(study)
                                           for study in ("dropout", "step_size")},)),
}


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


# --- Writing and checking -----------------------------------------------------------------------------------------

def notebook_path(step: str) -> Path:
    """The notebook of a step."""
    return ROOT / "Notebooks" / f"MNIST_{step}.ipynb"


def told(step: str) -> list[str]:
    """What a step's notebook says of the runs that others made: of its recipe over seeds, and of the studies it shows."""
    studies = {"basic": ["learning_rate_basic"], "augmentation": ["path", "interpolation"],
               "regularization": ["parts", "dropout", "step_size", "learning_rate_regularization"]}[step]
    return [over_seeds("steps", step), over_seeds("original", step), *map(sweep_table, studies)]


def _part(name: str) -> re.Pattern:
    return re.compile(rf"(?<=<!-- generated: {name} -->\n)(?:(?!<!--).)*(?=\n<!-- end -->)", re.DOTALL)


def write() -> None:
    """Write the README's generated parts and the pictures; a reduced run leaves them as they are."""
    if reduced():
        return
    text = README.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        text, found = _part(name).subn(make().replace("\\", r"\\"), text)
        if found != 1:
            raise RuntimeError(f"README.md: the markers of the part {name!r} stand {found} times, not once")
    for name, (draw, read) in PICTURES.items():
        data = read()
        figure = draw(*data)
        figure.savefig(IMAGES / name, metadata={"Software": None, "Data": _digest(data)})
        plt.close(figure)
    README.write_text(text, encoding="utf-8", newline="\n")


def check() -> list[str]:
    """What no longer agrees with the records: one line per README part, picture or notebook, none if all do."""
    faults = []
    text = README.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        if _part(name).findall(text) != [make()]:
            faults.append(f"README.md: the part {name!r} does not agree with the records; python -m src report renews it")
    for name, (_, read) in PICTURES.items():
        if not (IMAGES / name).exists() or _stored_digest(IMAGES / name) != _digest(read()):
            faults.append(f"images/{name} does not agree with the records; python -m src report renews it")
    for step in STEPS:
        cells = [cell for cell in nbformat.read(notebook_path(step), as_version=4).cells if cell.cell_type == "code"]
        printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
        tables = [output["data"].get("text/markdown", "") for cell in cells for output in cell.outputs if "data" in output]
        if _figures(printed) != _figures(log(shown(step))) or not all(any(text in table for table in tables)
                                                                      for text in told(step)):
            faults.append(f"{notebook_path(step).name} does not show what is recorded; python -m src notebooks renews it")
    return faults


def _stored_digest(picture: Path) -> str | None:
    with Image.open(picture) as image:
        return image.info.get("Data")


def _figures(printed: str) -> list[str]:
    return re.findall(r"^EPOCH: .*|^Loss=[^:]*|^Test set: .*", printed, re.MULTILINE)
