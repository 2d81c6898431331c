"""The README's generated parts and the pictures in `images/`, from the records; and whether they still agree."""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import nbformat
import torchsummary
from matplotlib.figure import Figure
from PIL import Image

from . import bench, plots
from .data import MEAN, STD
from .experiments import STEPS, recorded, run_key
from .models import MODELS, count_parameters
from .studies import STUDIES, study_records
from .training import epoch_text

ROOT = Path(__file__).parent.parent
README, IMAGES = ROOT / "README.md", ROOT / "images"


# --- What the records say -----------------------------------------------------------------------------------------

def shown(step: str) -> dict:
    """The record of the run that a step's notebook shows, that with seed 1.

    Raises RuntimeError where there is none.
    """
    try:
        return recorded("runs")[run_key(STEPS[step], 1)]
    except KeyError:
        raise RuntimeError(f"no record of {step} with seed 1: python -m src train {step} makes it") from None


def worst_of_last_five(history: Sequence[Mapping]) -> float:
    """The lowest test accuracy in % of the last five epochs."""
    return min(epoch["test_accuracy"] for epoch in history[-5:])


def steady_from(history: Sequence[Mapping]) -> int | None:
    """The first epoch from which on every one is at 99.4 % or above; None where the last one is not."""
    below = [epoch["epoch"] for epoch in history if epoch["test_accuracy"] < plots.TARGET]
    first = max(below, default=0) + 1
    return first if first <= len(history) else None


def gap(history: Sequence[Mapping]) -> str:
    """How far training ends from the test: one sentence."""
    ahead = history[-1]["train_accuracy"] - history[-1]["test_accuracy"]
    return f"Training ends {abs(ahead):.2f} points {'ahead of' if ahead > 0 else 'behind'} the test."


def finished(study: str) -> dict[str, list[dict]]:
    """For each label of a study the records of the seeds that did not diverge."""
    return {label: [record for record in runs if "failed" not in record] for label, runs in study_records(study).items()}


def last_accuracies(study: str) -> dict[str, list[float]]:
    """For each label of a study the accuracy in % of the last epoch of each of its seeds that did not diverge."""
    return {label: [record["history"][-1]["test_accuracy"] for record in runs]
            for label, runs in finished(study).items() if runs}


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in % with two decimals; of a single value, the value."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def precision_gap() -> str:
    """What the default precision costs in step 3 against float32, over paired seeds: one sentence."""
    runs = study_records("precision")
    default, plain = ([record["history"][-1]["test_accuracy"] for record in records] for records in runs.values())
    names = [records[0]["precision"] for records in runs.values()]
    return (f"Over {len(plain)} paired seeds of step 3, {names[0]} ends at {spread(default)} % of the test images, "
            f"{names[1]} at {spread(plain)} %: a difference of {mean(default) - mean(plain):+.2f} points.")


def sweep_table(study: str) -> str:
    """A study as a Markdown table: last epoch, mean (± standard deviation) over the seeds."""
    rows = [f"| {STUDIES[study].setting} | validation accuracy (%) | worst of the last five epochs (%) "
            "| validation loss | training accuracy (%) | seeds |", "| --- | --- | --- | --- | --- | --- |"]
    for label, runs in finished(study).items():
        seeds = f"{len(runs)}" if len(runs) == STUDIES[study].seeds else f"{len(runs)}; the others diverged"
        if not runs:
            rows.append(f"| {label} | – | – | – | – | {seeds} |")
            continue
        test, train = ([record["history"][-1][f"{part}_accuracy"] for record in runs] for part in ("test", "train"))
        worst = min(worst_of_last_five(record["history"]) for record in runs)
        loss = mean(record["history"][-1]["test_loss"] for record in runs)
        rows.append(f"| {label} | {spread(test)} | {worst:.2f} | {loss:.4f} | {spread(train)} | {seeds} |")
    return "\n".join(rows)


def difference(values: Mapping[str, Sequence[float]], one: str, other: str) -> tuple[float, bool]:
    """By how many points the mean of `one` is above that of `other`, and whether that is more than noise.

    More than noise is more than three standard errors of the difference (about 95 % confidence for three seeds each).
    """
    gain = mean(values[one]) - mean(values[other])
    error = sum(stdev(values[label]) ** 2 / len(values[label]) for label in (one, other)) ** 0.5
    return round(gain, 2) + 0.0, abs(gain) > 3 * error  # + 0.0: no negative zero


def gain(study: str, one: str, other: str) -> str:
    """By how many points `one` is above `other` in a study, and whether that is within the noise."""
    points, clear = difference(last_accuracies(study), one, other)
    return f"{points:+.2f} points{'' if clear else ' (within the noise)'}"


def verdict(study: str, claim: str) -> str:
    """Whether the setting `claim` is the best of a study: one sentence in Markdown."""
    values = last_accuracies(study)
    rival = max((label for label in values if label != claim), key=lambda label: mean(values[label]))
    gain, clear = difference(values, claim, rival)
    found = "**confirmed**" if gain > 0 else "**refuted**"
    if not clear:
        found = "within the noise: the claim is neither confirmed nor refuted"
    return (f"{claim} reaches {spread(values[claim])} % on the validation split, its strongest rival, {rival}, "
            f"{spread(values[rival])} %: a difference of {gain:+.2f} points, {found}.")


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
    history = shown("augmentation")["history"]
    steady = steady_from(history)
    return (f"**{history[-1]['test_accuracy']:.2f} %** of the test images are read correctly after {len(history)} epochs "
            f"by a network of {parameters('augmentation')} parameters (seed 1). The worst of the last five epochs is "
            f"{worst_of_last_five(history):.2f} %"
            + (f"; from epoch {steady} on, every epoch is at 99.40 % or above." if steady else "."))


TARGETS = {
    "basic": "a skeleton that learns; no batch normalisation, dropout, augmentation or scheduler",
    "regularization": "99.4 % within 10,000 parameters, with batch normalisation, dropout and a learning-rate scheduler",
    "augmentation": "99.4 % in every one of the last five epochs with fewer than 8,000 parameters, by image augmentation",
}


def analysis(step: str) -> str:
    """What a step's measurements say, in a sentence or two for the table."""
    ended = gap(shown(step)["history"])
    if step == "basic":
        return f"It learns. {ended} Next: regularise, and lower the learning rate as training goes on."
    study, whole, parts = {
        "regularization": ("parts", "all three", {"batch normalisation": "no batch norm", "the scheduler": "no scheduler",
                                                  "dropout": "no dropout"}),
        "augmentation": ("augmentation", "AdamW", {"augmentation": "AdamW, no augmentation",
                                                   "nearest, not bilinear, interpolation": "AdamW, bilinear",
                                                   "averaging the weights": "AdamW, no averaging"})}[step]
    gains = [f"{name} {gain(study, whole, without)}" for name, without in parts.items()]
    return f"On the validation split: {', '.join(gains)}. {ended}"


def results_table() -> str:
    rows = ["| step | target | result | analysis |", "| --- | --- | --- | --- |"]
    for step in STEPS:
        name, history = notebook_path(step).stem, shown(step)["history"]
        last, worst = history[-1], worst_of_last_five(history)
        rows.append(f"| [{name}](Notebooks/{name}.ipynb) | {TARGETS[step]} | train {last['train_accuracy']:.2f} %, test "
                    f"**{last['test_accuracy']:.2f} %** (worst of the last five epochs {worst:.2f} %), {parameters(step)} "
                    f"parameters | {analysis(step)} |")
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

def _history(step: str) -> list[dict]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in shown(step)["history"]]


def _sweeps(*studies: str) -> dict[str, dict[str, list[float]]]:
    return {STUDIES[study].setting: last_accuracies(study) for study in studies}


# Each picture's function of `plots`, and the data that it draws.
PICTURES: dict[str, tuple[Callable[..., Figure], Callable[[], object]]] = {
    "steps.png": (plots.steps, lambda: {step: _history(step) for step in STEPS}),
    "augmentation.png": (plots.curves, lambda: _history("augmentation")),
    "sweeps.png": (plots.sweeps, lambda: _sweeps("dropout", "step_size")),
}


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


# --- Writing and checking -----------------------------------------------------------------------------------------

def notebook_path(step: str) -> Path:
    """The notebook of a step."""
    return ROOT / "Notebooks" / f"MNIST_{step}.ipynb"


def _part(name: str) -> re.Pattern:
    return re.compile(rf"(?<=<!-- generated: {name} -->\n)(?:(?!<!--).)*(?=\n<!-- end -->)", re.DOTALL)


def write() -> None:
    """Write the README's generated parts and the pictures."""
    text = README.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        text, found = _part(name).subn(make().replace("\\", r"\\"), text)
        if found != 1:
            raise RuntimeError(f"README.md: the markers of the part {name!r} stand {found} times, not once")
    for name, (draw, read) in PICTURES.items():
        data = read()
        figure = draw(data)
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
        printed = "".join(output.get("text", "") for cell in nbformat.read(notebook_path(step), as_version=4).cells
                          for output in cell.get("outputs", []))
        if _figures(printed) != _figures(log(shown(step))):
            faults.append(f"{notebook_path(step).name} does not show the recorded run; python -m src notebooks renews it")
    return faults


def _stored_digest(picture: Path) -> str | None:
    with Image.open(picture) as image:
        return image.info.get("Data")


def _figures(printed: str) -> list[str]:
    return re.findall(r"^EPOCH: .*|^Loss=[^:]*|^Test set: .*", printed, re.MULTILINE)
