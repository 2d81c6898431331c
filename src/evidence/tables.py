"""The tables of the READMEs and the notebooks, as Markdown, from the records.

Numbers are written here, sentences by people. Every function reads the records as they are.
"""

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import mean, stdev

import torchsummary
from tqdm import tqdm

from .. import store
from ..experiments import STEPS, TARGET
from ..models import MODELS, count_parameters
from ..training import format_progress, format_test
from . import benchmark, statistics
from .runner import study_records
from .studies import STUDIES

# The mean test accuracy in % that meets a step's target; None if every seed has to be consistent.
TARGETS = {"basic": 97.96, "regularization": TARGET, "augmentation": None}
REPORTED = {"basic": 97.96, "regularization": 99.33, "augmentation": 99.44}  # by the original


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def format_mean(values: Sequence[float]) -> str:
    """Mean ± standard deviation; of a single value, the value; "–" without a number."""
    if not values or any(map(math.isnan, values)):
        return "–"
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def format_difference(gain: float, low: float, high: float) -> str:
    """A difference in percentage points with its interval, and whether it is resolved."""
    if math.isnan(gain):
        return "–"
    # Rounded first, so that the text agrees with itself; + 0.0: no negative zero.
    numbers = [round(value, 2) + 0.0 for value in (gain, low, high)]
    texts = [f"{value:+.2f}".replace("-", "−") for value in numbers]
    if math.isinf(low):
        return f"{texts[0]} (one seed)"
    resolved = "" if numbers[1] > 0 or numbers[2] < 0 else ", not resolved"
    return f"{texts[0]} ({texts[1]} to {texts[2]}){resolved}"


def format_consistent(records: Sequence[Mapping]) -> str:
    """How many seeds are consistent, with the exact interval of their share; "–" if unknown."""
    finished = [record for record in records if "failed" not in record]
    if not records or finished and all(len(record["history"]) < 5 for record in finished):
        return "–"
    count = sum(map(statistics.is_consistent, records))
    low, high = statistics.proportion_interval(count, len(records))
    return f"{count} of {len(records)} ({low:.0f} to {high:.0f} %)"


def accuracies(study: str, measure: Callable = statistics.lowest) -> dict[str, list[float]]:
    """An accuracy in % of every seed, for each label of a study whose recorded seeds all train."""
    found = {}
    for label, records in study_records(study).items():
        histories = statistics.trained(records)
        if histories and len(histories) == len(records):
            found[label] = [measure(history) for history in histories]
    return found


def differences(study: str, measure: Callable = statistics.lowest) -> dict[str, tuple]:
    """For each label of a study that is compared with another, the difference and its interval.

    Rows that were made in different precisions are not compared, unless the study is about that.
    """
    values, found = accuracies(study, measure), {}
    rows, recipes = study_records(study), STUDIES[study].experiments
    for label, other in STUDIES[study].comparisons().items():
        if {label, other} <= values.keys():
            used = {rows[name][0]["recipe"]["precision"] for name in (label, other)}
            if len(used) == len({recipes[name].precision for name in (label, other)}):
                found[label] = statistics.difference(values[label], values[other])
    return found


def study_table(study: str) -> str:
    """A study: lowest of the last five epochs, difference, consistent seeds, last epoch."""
    plan, gains = STUDIES[study], differences(study)
    header = [plan.setting, "lowest of the last five epochs (%)", "consistent seeds"]
    header += ["last epoch (%)", "precision, device"]
    if plan.reference:
        header.insert(2, f"difference from {plan.reference} (pp, 95 % interval)")
    rows = []
    for label, records in study_records(study).items():
        good = statistics.trained(records)
        note = "" if len(good) == len(records) else f" ({len(good)} of {len(records)} seeds train)"
        lowest = format_mean([*map(statistics.lowest, good)])
        last = format_mean([*map(statistics.last, good)])
        made = {(record["recipe"]["precision"], record["device_name"]) for record in records}
        rows.append([label, lowest + note, format_consistent(records), last + note])
        rows[-1].append("; ".join(", ".join(place) for place in sorted(made)))
        if plan.reference:
            rows[-1].insert(2, format_difference(*gains[label]) if label in gains else "–")
    return markdown_table(header, rows)


def resolution_table() -> str:
    """The smallest difference of two lowest accuracies that each study detects with 80 % power."""
    rows = []
    for name, study in STUDIES.items():
        values = [v for v in accuracies(name).values() if len(v) > 1 and not math.isnan(v[0])]
        if not study.reference or not values:
            continue
        seeds, count = min(map(len, values)), len(differences(name))
        deviation = math.sqrt(mean(stdev(sample) ** 2 for sample in values))
        single, every = (statistics.resolution(deviation, seeds, n) for n in (1, count))
        rows.append([name, seeds, f"{deviation:.2f}", f"{single:.2f}", f"{every:.2f} for {count}"])
    header = ["study", "seeds", "standard deviation of the lowest (pp)"]
    return markdown_table([*header, "one comparison (pp)", "corrected for their number (pp)"], rows)


def results_table() -> str:
    """What the steps reach over their seeds, and what the original series did."""
    rows = []
    for number, (step, experiment) in enumerate(STEPS.items(), 1):
        ours, original = (study_records(study)[step] for study in ("steps", "original"))
        tests, again = ([*map(statistics.last, statistics.trained(r))] for r in (ours, original))
        count = len(original)
        note = "" if len(again) == count else f" ({len(again)} of {count} train)"
        if TARGETS[step]:
            target, met = f"{TARGETS[step]:.2f} %", mean(tests) >= TARGETS[step]
        else:
            target, met = "every seed consistent", all(map(statistics.is_consistent, ours))
        consistent = sum(map(statistics.is_consistent, original))
        rows.append(
            [
                f"{number}: [{step}](Notebooks/MNIST_{step}.ipynb)",
                f"**{format_mean(tests)}**",
                f"**{format_consistent(ours).replace(' (', '** (')}",
                f"{count_parameters(MODELS[experiment.model]()):,}",
                f"{target}: {'met' if met else 'missed'}",
                f"{REPORTED[step]:.2f}",
                f"{format_mean(again)}{note}; {consistent} of {count} consistent",
            ]
        )
    header = ["step", "test accuracy (%)", "consistent seeds", "parameters", "target"]
    original = ["the original: reported (%)", "reproduced (%)"]
    return markdown_table([*header, *original], rows)


def facts() -> str:
    """The other numbers that sentences state."""
    rows = [fact for number, step in enumerate(STEPS, 1) for fact in _step_facts(number, step)]
    histories = statistics.trained(study_records("steps")["augmentation"])
    error = statistics.sampling_error(mean(map(statistics.last, histories)))
    rows.append(["step 3, other 10,000 test images, 95 % (pp)", f"± {error:.2f}"])
    stable = [statistics.first_stable_epoch(run) for run in histories]
    epoch = max(stable) if all(stable) else "–"
    rows.append(["step 3, epoch from which every seed stays at 99.40 % or above", epoch])
    rows += _fold_facts()
    gain = differences("scheduler", statistics.last)["SGD 0.2, OneCycleLR (step 2)"]
    rows.append(["step 2 minus Adam with StepLR(5), last epoch (pp)", format_difference(*gain)])
    chain = accuracies("ablation")
    step3 = chain["+ shear (step 3)"]
    transforms = format_difference(*statistics.difference(step3, chain["+ averaging"]))
    rows.append(["the four transforms together, lowest (pp)", transforms])
    records = store.load_records("study").values()
    hours = sum(record["seconds"] * record["threads"] for record in records) / 3600
    rows.append(["recorded runs", f"{len(records)}, {hours:.0f} core-hours"])
    return markdown_table(["quantity", "value"], rows)


def _fold_facts() -> list[list[str]]:
    folds = [*accuracies("folds", statistics.last).values()]
    every = [mean(values) for values in zip(*folds, strict=True)]  # of each seed
    others = [record for row in [*study_records("folds").values()][:5] for record in row]
    consistent = f"{sum(map(statistics.is_consistent, others))} of {len(others)}"
    gain = mean(folds[5]) - mean(map(mean, folds[:5]))
    return [
        ["step 3, all six folds (60,000 images), last epoch (%)", format_mean(every)],
        ["step 3, folds 1 to 5, consistent runs", consistent],
        ["step 3, fold 6 minus the mean of folds 1 to 5, last epoch (pp)", f"{gain:+.2f}"],
    ]


def _step_facts(number: int, step: str) -> list[list[str]]:
    ours = statistics.trained(study_records("steps")[step])
    last, lowest = ([*map(of, ours)] for of in (statistics.last, statistics.lowest))
    value, low, high = statistics.mean_interval(last)
    rows = [["mean of the last epoch (%)", f"{value:.2f} ({low:.2f} to {high:.2f})"]]
    rows.append(["lowest of the last five epochs (%)", format_mean(lowest)])
    gaps = [run[-1]["train_accuracy"] - run[-1]["test_accuracy"] for run in ours]
    gap = format_difference(*statistics.mean_interval(gaps))
    rows.append(["training minus test accuracy, last epoch (pp)", gap])
    spread = mean(max(map(statistics.last, zip(run[-5:]))) - statistics.lowest(run) for run in ours)
    rows.append(["spread of the last five epochs, mean (pp)", f"{spread:.2f}"])
    return [[f"step {number}, {name}", text] for name, text in rows]


def hyperparameters() -> str:
    """The recipes of the three steps side by side, 1/28 as a fraction."""
    recipes = [vars(experiment) for experiment in STEPS.values()]
    names = [name for name in recipes[0] if name not in ("name", "split")]
    rows = [[name, *(_setting(recipe[name]) for recipe in recipes)] for name in names]
    return markdown_table(["", *STEPS], rows)


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items()) or "–"
    if isinstance(value, tuple):
        return f"({', '.join(map(_setting, value))})"
    if isinstance(value, float) and len(str(value)) > 8:
        return str(Fraction(value).limit_denominator(100))
    return "–" if value is None else str(value)


def load_claims() -> list[dict]:
    """What others published, each read in their `file`: accuracy in % on the test images."""
    return json.loads(store.results_path("claims.json").read_text(encoding="utf-8"))


def claims_table() -> str:
    """The results of others, numbered as in the picture."""
    header, rows = ["", "repository, file", "parameters", "accuracy (%)", "what it is"], []
    for number, claim in enumerate(load_claims(), 1):
        name = claim["repository"]
        rows.append([number, f"[{name}](https://github.com/{name}), {claim['file']}"])
        rows[-1] += [f"{claim['parameters']:,}", f"{claim['accuracy']:.2f}", claim["note"]]
    return markdown_table(header, rows)


def speed_table(record: Mapping | None = None) -> str:
    """A benchmark, by default the recorded one, and where it was made."""
    if record is None:
        record = json.loads(store.results_path("bench.json").read_text(encoding="utf-8"))
    machine = f"{record['device_name']}, {record['threads']} threads, PyTorch {record['torch']}"
    header = ["step", f"pipeline ({machine})", "seconds per epoch", "images per second"]
    header.append(f"times as fast as the usual one (range of {record['turns']} rounds)")
    rows = []
    for step, measured in record["seconds"].items():
        for name, seconds in measured.items():
            usual = measured[benchmark.USUAL]
            ratios = [other / own for other, own in zip(usual, seconds, strict=True)]
            speed = 70_000 * record["share"] / mean(seconds)
            faster = f"{mean(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            rows.append([step, name, f"{mean(seconds):.1f}", f"{speed:,.0f}", faster])
    return markdown_table(header, rows)


def architecture() -> str:
    """The torchsummary table of the final model."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(MODELS[STEPS["augmentation"].model](), (1, 28, 28), device="cpu")
    return f"```text\n{printed.getvalue().strip()}\n```"


def log(record: Mapping) -> str:
    """What training printed, from the record."""
    lines, count = [], record["test_size"]
    batches = math.ceil(record["train_size"] / record["recipe"]["batch_size"])
    for epoch in record["history"]:
        prefix = format_progress(batches - 1, epoch["train_loss"], epoch["train_accuracy"])
        correct = round(epoch["test_accuracy"] * count / 100)
        lines.append(f"EPOCH: {epoch['epoch']}")
        lines.append(tqdm.format_meter(batches, batches, epoch["seconds"], prefix=prefix))
        lines.append(format_test(epoch["test_loss"], correct, count))
    return "\n".join(lines)
