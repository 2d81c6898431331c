"""The tables of the READMEs, as Markdown, from rows and records."""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from statistics import mean, stdev

import torchsummary
from tqdm import tqdm

from .. import store
from ..experiments import STEPS, TARGET
from ..models import count_parameters
from ..recipes import build_model
from ..training import format_progress, format_test
from . import benchmark, measures
from .behaviour import QUANTITIES, load_behaviour
from .compared import load_mean_curves
from .formats import (
    format_difference,
    format_mean,
    format_number,
    format_share_interval,
    markdown_table,
)
from .rows import Row, Rows
from .studies import SHOWN, STUDIES

# The mean test accuracy in % that meets a step's target; None if every seed has to be consistent.
TARGETS = {"basic": 97.96, "regularization": TARGET, "augmentation": None}
REPORTED = {"basic": 97.96, "regularization": 99.33, "augmentation": 99.44}  # by the original


def study_table(name: str, rows: Rows) -> str:
    """A study: lowest of the last five epochs, difference, consistent seeds, last epoch."""
    study = STUDIES[name]
    return _rows_table(study.setting, rows[name].values(), study.reference)


def _rows_table(setting: str, rows: Iterable[Row], reference: str | None) -> str:
    header = [setting, "lowest of the last five epochs (%)", "consistent seeds", "last epoch (%)"]
    if reference:
        header.insert(2, f"difference from {reference} (pp, 95 % interval)")
    lines = []
    for row in rows:
        note = ""
        if len(row.histories) < len(row.records):
            note = f" ({len(row.histories)} of {len(row.records)} seeds learn)"
        cells = [row.label, format_mean(row.lowest) + note]
        if reference:
            mark = " *" if row.survives_holm else ""
            cells.append(format_difference(row.difference) + mark)
        lines.append([*cells, _format_consistent(row), format_mean(row.last) + note])
    return markdown_table(header, lines)


def _format_consistent(row: Row, mark: str = "") -> str:
    """How many seeds are consistent, with the interval of their share; "–" if that is unknown.

    `mark` stands before and after the count, for example to print it in bold.
    """
    finished = [record for record in row.records if "failed" not in record]
    too_short = finished and all(len(record["history"]) < 5 for record in finished)
    if not row.records or too_short:
        return f"{mark}–{mark}"
    total = len(row.records)
    count = f"{mark}{row.consistent} of {total}{mark}"
    return f"{count} ({format_share_interval(row.consistent, total)})"


def steps_table(rows: Rows) -> str:
    """The three steps over their seeds."""
    return _rows_table("step", [rows[step][step] for step in STEPS], None)


def resolution_table(rows: Rows) -> str:
    """The smallest difference of two lowest accuracies that each study detects with 80 % power."""
    lines = []
    for name in SHOWN:
        samples = [row.lowest for row in rows[name].values() if row.is_comparable]
        samples = [values for values in samples if len(values) > 1]
        comparisons = sum(row.difference is not None for row in rows[name].values())
        if not samples or not comparisons:
            continue
        seeds = min(map(len, samples))
        deviation = math.sqrt(mean(stdev(values) ** 2 for values in samples))
        single = measures.detectable_difference(deviation, seeds)
        corrected = measures.detectable_difference(deviation, seeds, comparisons)
        numbers = [f"{deviation:.2f}", f"{single:.2f}", f"{corrected:.2f} for {comparisons}"]
        lines.append([name, seeds, *numbers])
    header = ["study", "seeds", "standard deviation of the lowest (pp)"]
    header += ["one comparison (pp)", "corrected for their number (pp)"]
    return markdown_table(header, lines)


def results_table(rows: Rows) -> str:
    """What the steps reach over their seeds."""
    lines = []
    for number, (step, experiment) in enumerate(STEPS.items(), 1):
        ours = rows[step][step]
        lines.append(
            [
                f"{number}: [{step}](Notebooks/MNIST_{step}.ipynb)",
                f"**{format_mean(ours.last)}**",
                _format_consistent(ours, mark="**"),
                f"{count_parameters(build_model(experiment)):,}",
                _format_target(TARGETS[step], ours, STUDIES[step].seeds),
            ]
        )
    header = ["step", "test accuracy (%)", "consistent seeds", "parameters", "target"]
    return markdown_table(header, lines)


def original_results_table(rows: Rows) -> str:
    """What the original series reports, and what its recipes reach over our seeds."""
    lines = []
    for number, (step, row) in enumerate(rows["original"].items(), 1):
        note = "" if row.all_learn else f" ({len(row.histories)} of {len(row.records)} seeds learn)"
        accuracy = f"{format_mean(row.last)}{note}"
        consistent = f"{row.consistent} of {len(row.records)}"
        lines.append([number, f"{REPORTED[step]:.2f}", accuracy, consistent])
    header = ["step", "reported (%)", "reproduced (%)", "consistent seeds"]
    return markdown_table(header, lines)


def _format_target(target: float | None, row: Row, seeds: int) -> str:
    """A step's target, and whether its runs meet it; `seeds` is the planned number of runs."""
    if target is None:
        text = "every seed consistent"
        met = row.consistent == len(row.records)
    else:
        text = f"{target:.2f} %"
        met = bool(row.last) and mean(row.last) >= target
    if not row.records:
        return text
    so_far = "" if len(row.records) == seeds else " so far"
    return f"{text}: {'met' if met else 'missed'}{so_far}"


def hyperparameters(_: Rows) -> str:
    """The recipes of the three steps side by side, 1/28 as a fraction."""
    recipes = [vars(experiment) for experiment in STEPS.values()]
    names = [name for name in recipes[0] if name not in ("name", "split")]
    lines = [[name, *(_setting(recipe[name]) for recipe in recipes)] for name in names]
    return markdown_table(["", *STEPS], lines)


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items()) or "–"
    if isinstance(value, tuple):
        return f"({', '.join(map(_setting, value))})"
    if isinstance(value, float):
        return _format_float(value)
    return "–" if value is None else str(value)


def _format_float(value: float) -> str:
    """As Python writes it, but 1/28 instead of 0.03571428571428571."""
    fraction = Fraction(value).limit_denominator(100)
    if len(str(value)) > 8 and float(fraction) == value:
        return str(fraction)
    return str(value)


def load_claims() -> list[dict]:
    """What others published, taken from the `file` of each: accuracies in % on the test images.

    `last` is that of the last epoch, `best` the highest of all epochs, `lowest` the lowest of the
    last five epochs; None stands for what the file does not say.
    """
    return json.loads((store.EVIDENCE / "claims.json").read_text(encoding="utf-8"))


def claims_table(_: Rows) -> str:
    """The results of others, numbered as in the picture."""
    header = ["", "repository, file", "parameters", "last epoch (%)", "best epoch (%)"]
    header += ["lowest of the last five epochs (%)", "epochs", "seeds", ""]
    lines = []
    for number, claim in enumerate(load_claims(), 1):
        name = claim["repository"]
        source = f"[{name}](https://github.com/{name}), {claim['file']}"
        accuracies = [claim[measure] for measure in ("last", "best", "lowest")]
        texts = ["–" if value is None else f"{value:.2f}" for value in accuracies]
        rest = [claim["epochs"] or "–", claim["seeds"], claim["note"]]
        lines.append([number, source, f"{claim['parameters']:,}", *texts, *rest])
    return markdown_table(header, lines)


def behaviour_table(_: Rows) -> str:
    """What the network of step 3 does beyond accuracy."""
    numbers = load_behaviour()
    lines = [
        [quantity, format_number(numbers[name]) if name in numbers else "–"]
        for name, quantity in QUANTITIES.items()
    ]
    return markdown_table(["quantity", "value"], lines)


def robustness_table(_: Rows) -> str:
    """The accuracy of the compared networks on transformed images, the mean over their seeds."""
    curves = load_mean_curves()
    cells = {}  # the accuracies by distortion and strength
    for by_distortion in curves.values():
        for distortion, points in by_distortion.items():
            for strength, accuracy in points:
                cells.setdefault((distortion, strength), []).append(f"{accuracy:.1f}")
    header = ["distortion", "strength", *(f"{name} (%)" for name in curves)]
    return markdown_table(header, [[*key, *accuracies] for key, accuracies in cells.items()])


def recorded_speed_table(_: Rows) -> str:
    """The recorded benchmark, if there is one."""
    record = benchmark.load_benchmark(store.EVIDENCE)
    return speed_table(record) if record else "–"


def speed_table(record: Mapping) -> str:
    """A benchmark, and where it was made."""
    machine = f"{record['device_name']}, {record['threads']} threads, PyTorch {record['torch']}"
    header = ["step", f"pipeline ({machine})", "seconds per epoch", "images per second"]
    header.append(f"times as fast as the usual one (range of {record['rounds']} rounds)")
    lines = []
    for step, measured in record["seconds"].items():
        usual = measured[benchmark.USUAL]
        for name, seconds in measured.items():
            ratios = [other / own for other, own in zip(usual, seconds, strict=True)]
            epoch = mean(seconds) / record["share"]
            faster = f"{mean(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            lines.append([step, name, f"{epoch:.1f}", f"{70_000 / epoch:,.0f}", faster])
    return markdown_table(header, lines)


def architecture(_: Rows) -> str:
    """The torchsummary table of the final model."""
    printed = io.StringIO()
    model = build_model(STEPS["augmentation"])
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(model, (1, 28, 28), device="cpu")
    return f"```text\n{printed.getvalue().strip()}\n```"


def format_log(record: Mapping) -> str:
    """What training printed, from the record."""
    count = record["test_size"]
    batches = math.ceil(record["train_size"] / record["recipe"]["batch_size"])
    lines = []
    for epoch in record["history"]:
        prefix = format_progress(batches - 1, epoch["train_loss"], epoch["train_accuracy"])
        correct = round(epoch["test_accuracy"] * count / 100)
        lines.append(f"EPOCH: {epoch['epoch']}")
        lines.append(tqdm.format_meter(batches, batches, epoch["seconds"], prefix=prefix))
        lines.append(format_test(epoch["test_loss"], correct, count))
    return "\n".join(lines)
