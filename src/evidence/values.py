"""The numbers that sentences quote, by their names, as the texts that a reader sees.

A sentence quotes one between two comments, which a reader of the page does not see:
`<!-- augmentation/last -->99.55 ± 0.05<!-- -->`. `report` writes the number, and checks it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from statistics import mean, stdev

from .. import store
from ..data import FOLD_SIZE
from ..experiments import STEPS, load_step_records
from ..models import count_parameters
from ..recipes import build_model
from . import measures, misclassified
from .behaviour import load_behaviour
from .compared import load_compared, load_mean_curves
from .formats import (
    format_difference,
    format_interval,
    format_mean,
    format_number,
    format_share_interval,
    format_signed,
    format_signed_interval,
    markdown_table,
)
from .records import load_study_records
from .rows import Row, Rows, first_ten_records, summarize
from .studies import STUDIES

# What is computed for sentences alone, in the order of the table "Numbers quoted in the text".
FACTS = {
    "{step}/mean": "{name}, mean of the last epoch (%)",
    "{step}/lowest": "{name}, lowest of the last five epochs (%)",
    "{step}/overfitting": "{name}, training minus test accuracy, last epoch (pp)",
    "{step}/spread": "{name}, spread of the last five epochs, mean (pp)",
}
OTHER_FACTS = {
    "augmentation/sampling": "step 3, true accuracy: half of its 95 % interval, 10,000 images (pp)",
    "augmentation/stable": "step 3, epoch from which every seed stays at 99.40 % or above",
    "folds/all": "step 3, all six folds (60,000 images), last epoch (%)",
    "folds/mean others": "step 3, folds 1 to 5 (50,000 images), last epoch (%)",
    "folds/others": "step 3, folds 1 to 5, consistent runs",
    "folds/gap": "step 3, fold 6 minus the mean of folds 1 to 5, last epoch (pp)",
    "fewer_images/gap": "step 3 on 50,000 images, test set minus folds 1 to 5, last epoch (pp)",
    "augmentation/gain": "step 3 minus the original's, last epoch (pp)",
    "augmentation/gain lowest": "step 3 minus the original's, lowest (pp)",
    "regularization/gain": "step 2 minus the original's, last epoch (pp)",
    "regularization/gain lowest": "step 2 minus the original's, lowest (pp)",
    "decision_regularization/new seeds": "chosen minus earlier step 2, seeds 6 to 10, lowest (pp)",
    "decision_augmentation/new seeds": "chosen minus earlier step 3, seeds 6 to 10, lowest (pp)",
    "ablation/transforms": "the four transforms together, lowest (pp)",
    "parts/step 2/training gap": "step 2, training minus validation accuracy, last epoch (pp)",
    "parts/dropout 0.05/training gap": "step 2 with dropout 0.05, the same (pp)",
    "parts/dropout 0.2/training gap": "step 2 with dropout 0.2, the same (pp)",
    "misclassified/mean": "test images that a seed of step 3 misclassifies, mean of ten seeds",
    "misclassified/two": "of these, two seeds share, mean over the pairs",
    "misclassified/all": "of these, all seeds share",
    "misclassified/vote": "accuracy of a vote of these seeds (%)",
    "errors/p-value": "p-value of a McNemar test, networks of steps 2 and 3 (%)",
    "original errors/p-value": "p-value of a McNemar test, original and our recipe of step 3 (%)",
    "records": "recorded runs",
}
# Recipes were screened with the first five seeds before ten decided: the others are new.
SCREENED = 5
CHOSEN = {
    "decision_regularization": "three phases, 0.0008",
    "decision_augmentation": "two phases, 5e-5",
}
_QUOTED = re.compile(r"<!-- (?P<name>[^<>]+?) -->(?:(?!<!--).)*<!-- -->", re.DOTALL)


def named_values(rows: Rows) -> dict[str, str]:
    """All values that a sentence may quote, by name.

    `study/label/measure` is a cell of a study's table; for the three steps, the label is left out.
    """
    values = {}
    for study, by_label in rows.items():
        for label, row in by_label.items():
            prefix = study if study in STEPS else f"{study}/{label}"
            for measure, text in quote_row(row).items():
                values[f"{prefix}/{measure}"] = text
    for step, experiment in STEPS.items():
        row = rows[step][step]
        values[f"{step}/parameters"] = f"{count_parameters(build_model(experiment)):,}"
        if row.histories:
            values |= {f"{step}/{name}": text for name, text in _step_values(row).items()}
    values |= {f"behaviour/{name}": format_number(n) for name, n in load_behaviour().items()}
    values |= _facts(rows) | _error_values() | _shared_errors(rows) | _exercise_values()
    return values | _robustness_values()


def quote_row(row: Row) -> dict[str, str]:
    """The cells of a row, and their parts."""
    total = len(row.records)
    if not total:
        return {}
    values = {
        "seeds": str(total),
        "learn": f"{len(row.histories)} of {total}",
        "consistent": f"{row.consistent} of {total}",
        "share": format_share_interval(row.consistent, total),
    }
    return values | _quote_means(row) if row.histories else values


def _quote_means(row: Row) -> dict[str, str]:
    """What is quoted of the runs that learn."""
    values = {
        "lowest": format_mean(row.lowest),
        "last": format_mean(row.last),
        "mean lowest": format_number(mean(row.lowest)),
        "mean last": format_number(mean(row.last)),
        "deviation last": format_number(stdev(row.last)) if len(row.last) > 1 else "–",
        "training gap": format_signed(mean(_training_gaps(row))),
    }
    if row.difference:
        gain, low, high = row.difference
        values["size"] = format_number(abs(gain))
        if math.isfinite(low):  # not of a single seed
            values["interval"] = format_signed_interval(low, high)
    return values


def _training_gaps(row: Row) -> list[float]:
    """Training minus test accuracy of each run after its last epoch, in percentage points."""
    last_epochs = [history[-1] for history in row.histories]
    return [epoch["train_accuracy"] - epoch["test_accuracy"] for epoch in last_epochs]


def _step_values(row: Row) -> dict[str, str]:
    """What is quoted of a step besides the cells of its row."""
    value, low, high = measures.mean_interval(row.last)
    gaps = _training_gaps(row)
    spreads = [measures.highest(history) - measures.lowest(history) for history in row.histories]
    error = measures.sampling_error(mean(row.last))
    stable = [measures.first_stable_epoch(history) for history in row.histories]
    return {
        "mean": f"{format_number(value)} ({format_interval(low, high)})",
        "mean interval": format_interval(low, high),
        "overfitting": format_difference(measures.mean_interval(gaps)),
        "gap": format_number(abs(mean(gaps))),
        "spread": format_number(mean(spreads)),
        "sampling": format_number(error),
        "stable": str(max(stable)) if all(stable) else "–",
        "minimum": f"{min(row.lowest):.2f}",
    }


def _facts(rows: Rows) -> dict[str, str]:
    """What compares or combines several rows."""
    values = {}
    folds = rows["folds"]
    others = [row for label, row in folds.items() if label != "fold 6"]
    consistent = sum(row.consistent for row in others)
    runs = sum(len(row.records) for row in others)
    if runs:
        values["folds/others"] = f"{consistent} of {runs}"
    on_test = rows["fewer_images"]["50,000"]
    if all(row.all_learn for row in (on_test, *folds.values())):
        gap = mean(folds["fold 6"].last) - mean(mean(row.last) for row in others)
        values["folds/all"] = format_mean(_means_over_folds(folds.values()))
        values["folds/mean others"] = format_mean(_means_over_folds(others))
        values["folds/gap"] = format_signed(gap)
        values |= _quote_difference("fewer_images/gap", _compare_images(on_test, others))
    values |= _compare_rows(rows)
    records = load_study_records().values()
    hours = sum(record["seconds"] * record["threads"] for record in records) / 3600
    values["records"] = f"{len(records)}, {hours:.0f} core-hours"
    return values


def _compare_rows(rows: Rows) -> dict[str, str]:
    """Differences that no column of a table shows."""
    original, ablation = rows["original"], rows["ablation"]
    step_2, step_3 = rows["regularization"]["regularization"], rows["augmentation"]["augmentation"]
    plain = ablation["+ two phases, weight decay 5e-5"]
    comparisons = {
        "augmentation/gain": ("last", step_3, original["augmentation"]),
        "augmentation/gain lowest": ("lowest", step_3, original["augmentation"]),
        "regularization/gain": ("last", step_2, original["regularization"]),
        "regularization/gain lowest": ("lowest", step_2, original["regularization"]),
        "ablation/transforms": ("lowest", ablation["+ shear"], plain),
    }
    for study, label in CHOSEN.items():
        earlier, chosen = rows[study][STUDIES[study].reference], rows[study][label]
        comparisons[f"{study}/new seeds"] = ("lowest", _new_seeds(chosen), _new_seeds(earlier))
    values = {}
    for name, (measure, row, reference) in comparisons.items():
        samples = getattr(row, measure), getattr(reference, measure)
        if row.all_learn and reference.all_learn and min(map(len, samples)) > 1:
            difference, _ = measures.compare(*samples)
            values |= _quote_difference(name, difference)
    return values


def _new_seeds(row: Row) -> Row:
    """The seeds of a row with which no recipe was screened."""
    records = [record for record in row.records if record["seed"] > SCREENED]
    return summarize(row.label, records)


def _quote_difference(name: str, difference: measures.Estimate) -> dict[str, str]:
    """A difference with its interval, and its parts."""
    gain, low, high = difference
    return {
        name: format_difference(difference),
        f"{name}/size": format_number(abs(gain)),
        f"{name}/interval": format_signed_interval(low, high),
    }


def _compare_images(row: Row, folds: list[Row]) -> measures.Estimate:
    """The last accuracy on the test set minus that on the folds; the interval is over images."""
    accuracy, on_folds = mean(row.last), mean(_means_over_folds(folds))
    error = measures.sampling_error(accuracy)
    fold_error = measures.sampling_error(on_folds, FOLD_SIZE * len(folds))
    gap, uncertainty = accuracy - on_folds, math.hypot(error, fold_error)
    return gap, gap - uncertainty, gap + uncertainty


def _means_over_folds(folds: Iterable[Row]) -> list[float]:
    """For each seed that was run on every fold, the mean of its last accuracies."""
    by_fold = []
    for row in folds:
        seeds = [record["seed"] for record in row.records]
        by_fold.append(dict(zip(seeds, row.last, strict=True)))
    shared = set.intersection(*map(set, by_fold))
    return [mean(accuracies[seed] for accuracies in by_fold) for seed in sorted(shared)]


def _error_values() -> dict[str, str]:
    """How many test images only one of two networks misclassifies.

    These are the networks of steps 2 and 3 that the notebooks show, and those of the original
    recipe of step 3 and of ours whose robustness is compared, the first run of each.
    """
    values = {}
    steps = "regularization", "augmentation"
    by_step = [load_step_records(store.EVIDENCE, step) for step in steps]
    if all(by_step):
        before, after = (misclassified.read_errors(records[-1]) for records in by_step)
        values = {"errors/step 2": str(len(before)), "errors/step 3": str(len(after))}
        values |= _compare_errors("errors", before, after)
    compared = load_compared()
    names = "the original's step 3", "step 3"
    if compared.keys() >= set(names):
        original, ours = (misclassified.read_errors(compared[name][0]) for name in names)
        values |= _compare_errors("original errors", original, ours)
    return values


def _compare_errors(
    prefix: str, before: misclassified.Errors, after: misclassified.Errors
) -> dict[str, str]:
    fixed, new, p_value = misclassified.mcnemar(before, after)
    return {
        f"{prefix}/fixed": str(fixed),
        f"{prefix}/new": str(new),
        f"{prefix}/p-value": f"{100 * p_value:.1f}",
    }


def _robustness_values() -> dict[str, str]:
    """The mean accuracy in % of each compared network at each strength of a distortion."""
    values = {}
    for name, by_distortion in load_mean_curves().items():
        for distortion, points in by_distortion.items():
            for strength, accuracy in points:
                values[f"robustness/{name}/{distortion} {strength:g}"] = f"{accuracy:.1f}"
    return values


def _shared_errors(rows: Rows) -> dict[str, str]:
    """What several seeds of step 3 misclassify: on average, two of them, all of them, by a vote."""
    records = first_ten_records(rows)
    if len(records) < 2:
        return {}
    errors_by_run = [misclassified.read_errors(record) for record in records]
    vote = misclassified.count_errors_of_vote(errors_by_run) / records[0]["test_size"]
    return {
        "misclassified/mean": f"{mean(map(len, errors_by_run)):.0f}",
        "misclassified/two": f"{misclassified.mean_shared_by_two(errors_by_run):.0f}",
        "misclassified/all": str(len(misclassified.shared_by_all(errors_by_run))),
        "misclassified/vote": format_number(100 * (1 - vote)),
    }


def _exercise_values() -> dict[str, str]:
    """The accuracies in % that the answers to the exercises quote."""
    values = {}
    for record in store.load_records(store.EVIDENCE / "exercises.jsonl").values():
        history, name = record["history"], record["recipe"]["name"]
        if not history:  # a run that diverges
            continue
        values[f"{name}/last"] = f"{measures.last(history):.2f}"
        values[f"{name}/lowest"] = f"{measures.lowest(history):.2f}"
        values[f"{name}/highest"] = f"{measures.highest(history):.2f}"
        values[f"{name}/first"] = f"{history[0]['test_accuracy']:.2f}"
        values[f"{name}/training"] = f"{history[-1]['train_accuracy']:.2f}"
    return values


def facts_table(rows: Rows) -> str:
    """The table of what is computed for sentences alone."""
    values = named_values(rows)
    lines = []
    for number, step in enumerate(STEPS, 1):
        for name, quantity in FACTS.items():
            text = values.get(name.format(step=step), "–")
            lines.append([quantity.format(name=f"step {number}"), text])
    lines += [[quantity, values.get(name, "–")] for name, quantity in OTHER_FACTS.items()]
    return markdown_table(["quantity", "value"], lines)


def fill_in(text: str, values: Mapping[str, str], file: str) -> str:
    """The text of a file with every quoted number as it is now.

    Raises ValueError, which names the file, if no value has the name of a quoted one.
    """

    def replace(quoted: re.Match) -> str:
        name = quoted["name"]
        if name not in values:
            fault = f"{file} quotes {name!r}, but no record has this value"
            places = "python -m src study --list, or results/exercises.jsonl"
            advice = f"check the name, and whether its runs are recorded ({places})"
            raise ValueError(f"{fault}: {advice}")
        return f"<!-- {name} -->{values[name]}<!-- -->"

    return _QUOTED.sub(replace, text)
