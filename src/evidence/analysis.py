"""What the records say: the statistics, tables and sentences that the READMEs and the notebooks share."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from statistics import mean, stdev

from scipy.stats import ttest_1samp, ttest_ind

from ..experiments import STEPS
from ..models import MODELS, count_parameters
from ..plots import TARGET
from ..records import load_records
from .studies import PLATFORMS, STUDIES, run_key, study_records

# The target of each step, and the mean accuracy that meets it; None if every seed has to be consistent.
TARGETS = {
    "basic": ("it learns, 97.96 % or more", 97.96),
    "regularization": ("99.40 %, with fewer than 10,000 parameters", TARGET),
    "augmentation": ("99.40 % consistently, with fewer than 8,000 parameters", None),
}
COLLAPSED = (
    50.0  # % accuracy: a run that ends at or below has not learned, or has lost what it had learned
)


def seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    keys = {run_key(STEPS[step], 1, *platform) for platform in PLATFORMS}
    found = [record for key, record in load_records("runs").items() if key in keys]
    if not found:
        raise RuntimeError(
            f"there is no record of {step} with seed 1: create it with python -m src train {step}"
        )
    return found[-1]


def lowest_of_last_five(history: Sequence[Mapping]) -> float:
    """The lowest test accuracy in % of the last five epochs."""
    return min(epoch["test_accuracy"] for epoch in history[-5:])


def is_consistent(record: Mapping) -> bool:
    """Whether each of the last five epochs of a run is at 99.4 % or above."""
    return "failed" not in record and lowest_of_last_five(record["history"]) >= TARGET


def first_stable_epoch(history: Sequence[Mapping]) -> int | None:
    """The first epoch from which every epoch is at 99.4 % or above; None if the last one is not."""
    first = (
        max((epoch["epoch"] for epoch in history if epoch["test_accuracy"] < TARGET), default=0) + 1
    )
    return first if first <= len(history) else None


def trained(records: Sequence[Mapping]) -> list[list[dict]]:
    """The histories of the runs that neither diverge nor collapse."""
    return [
        record["history"]
        for record in records
        if "failed" not in record and record["history"][-1]["test_accuracy"] > COLLAPSED
    ]


def last_accuracies(study: str) -> dict[str, list[float]]:
    """The accuracies in % of the last epoch, for each label of a study with recorded seeds that all train."""
    return {
        label: [history[-1]["test_accuracy"] for history in trained(records)]
        for label, records in study_records(study).items()
        if 0 < len(records) == len(trained(records))
    }


def format_mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation with two decimals; of a single value, the value."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def difference(
    values: Mapping[str, Sequence[float]], one: str, other: str, comparisons: int = 1
) -> tuple[float, float, float]:
    """The difference of the means of two labels, and its 95 % confidence interval (Welch's t): difference, low, high.

    The interval is corrected for the number of `comparisons` (Bonferroni). It is infinite if a label has a single value.
    """
    gain = mean(values[one]) - mean(values[other])
    if min(len(values[one]), len(values[other])) < 2:
        return gain, -math.inf, math.inf
    if (
        len({*values[one]}) == len({*values[other]}) == 1
    ):  # without variance, scipy's interval is undefined
        return gain, gain, gain
    interval = ttest_ind(values[one], values[other], equal_var=False).confidence_interval(
        1 - 0.05 / comparisons
    )
    return gain, float(interval.low), float(interval.high)


def compare(
    values: Mapping[str, Sequence[float]], one: str, other: str, comparisons: int = 1
) -> str:
    """The `difference` in percentage points with its interval, and whether so many seeds resolve it."""
    if missing := [label for label in (one, other) if label not in values]:
        return f"unknown (a seed of {missing[0]} is missing or failed)"
    return _format_difference(
        *difference(values, one, other, comparisons), min(len(values[one]), len(values[other]))
    )


def _format_difference(gain: float, low: float, high: float, seeds: int) -> str:
    texts = [
        f"{round(number, 2) + 0.0:+.2f}".replace("-", "−") for number in (gain, low, high)
    ]  # + 0.0: no negative zero
    if seeds < 2:
        return f"{texts[0]} pp (one seed, no interval)"
    return f"{texts[0]} pp ({texts[1]} to {texts[2]}{f'; not resolved by {seeds} seeds' if low <= 0 <= high else ''})"


def differences(study: str) -> dict[str, tuple[float, float, float]]:
    """For each label of a study that is compared with another: the `difference` from it."""
    values = last_accuracies(study)
    return {
        label: difference(values, label, other)
        for label, other in STUDIES[study].comparisons().items()
        if {label, other} <= values.keys()
    }


def holm(study: str) -> list[str]:
    """The labels of a study whose difference is resolved at 5 % after Holm's correction for the number of its comparisons."""
    values, pairs = last_accuracies(study), STUDIES[study].comparisons()
    p_values = {
        label: ttest_ind(values[label], values[other], equal_var=False).pvalue
        for label, other in pairs.items()
        if {label, other} <= values.keys() and min(len(values[label]), len(values[other])) > 1
    }
    ordered = sorted(
        (1.0 if math.isnan(p) else p, label) for label, p in p_values.items()
    )  # NaN: all seeds are equal
    return [
        label
        for _, (_, label) in takewhile(
            lambda item: item[1][0] * (len(pairs) - item[0]) <= 0.05, enumerate(ordered)
        )
    ]


def summary(records: Sequence[Mapping]) -> dict[str, str]:
    """What the runs of a recipe reach, in %: `train`, `test`, `lowest` (of the last five epochs), `consistent`, `note`.

    If some seeds diverge or collapse, `note` says how many train; `train` and `test` are then of those.
    """
    good, total = trained(records), len(records)
    lowest = [
        lowest_of_last_five(record["history"]) if record["history"] else 0.0 for record in records
    ]
    return {
        "train": f"{mean(history[-1]['train_accuracy'] for history in good):.2f}" if good else "–",
        "test": format_mean_std([history[-1]["test_accuracy"] for history in good])
        if good
        else "–",
        "lowest": f"{min(lowest):.2f}" if lowest else "–",
        "consistent": f"{sum(map(is_consistent, records))} of {total}",
        "note": "" if len(good) == total else f" ({len(good)} of {total} seeds train)",
    }


def study_table(study: str) -> str:
    """A study as a Markdown table: the last epoch over the recorded seeds, and the difference from the reference."""
    plan, values = STUDIES[study], last_accuracies(study)
    compared = plan.comparisons()
    if not any(study_records(study).values()):
        return "No run of this study is recorded yet."
    header = [
        plan.setting,
        "seeds",
        f"{_split(study)} accuracy (%)",
        "lowest of the last five epochs (%)",
        "loss",
        "training accuracy (%)",
    ]
    if plan.reference:
        header.insert(3, f"difference from {plan.reference} (95 % interval)")
    rows = []
    for label, records in study_records(study).items():
        found, good = summary(records), trained(records)
        loss = f"{mean(history[-1]['test_loss'] for history in good):.4f}" if good else "–"
        rows.append(
            [
                label,
                str(len(records)),
                found["test"] + found["note"],
                found["lowest"],
                loss,
                found["train"],
            ]
        )
        if plan.reference:
            rows[-1].insert(
                3,
                compare(values, label, compared[label])
                if {label, compared.get(label)} <= values.keys()
                else "–",
            )
    return keep_numbers_together(markdown_table(header, rows))


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    return "\n".join(
        f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)
    )


def verdict(study: str, claim: str) -> str:
    """Whether the setting `claim` is the best of a study: the end of a sentence, in Markdown."""
    values = last_accuracies(study)
    rivals = [label for label in values if label != claim]
    if (
        not rivals
        or len(values.get(claim, [])) < 2
        or min(len(values[label]) for label in rivals) < 2
    ):
        return "cannot be tested: not enough seeds are recorded."
    rival = max(rivals, key=lambda label: mean(values[label]))
    _, low, high = difference(values, claim, rival, len(rivals))
    found = "confirmed" if low > 0 else "refuted" if high < 0 else "neither confirmed nor refuted"
    return (
        f"is **{found}**: its difference from the best other value, {rival}, is {compare(values, claim, rival, len(rivals))}, "
        f"with the interval corrected for {len(rivals)} comparisons."
    )


def study_numbers(study: str) -> tuple[dict, dict, str, str | None]:
    """The numbers that `figures.study` draws: of the labels with recorded seeds that all train."""
    return (
        last_accuracies(study),
        differences(study),
        f"{_split(study)} accuracy (%)",
        STUDIES[study].reference,
    )


def _split(study: str) -> str:
    return next(iter(STUDIES[study].experiments.values())).split


def smallest_consistent() -> str:
    """A sentence that names the smallest network of the study "parameters" whose seeds are all consistent."""
    smaller = ""
    for label, records in study_records("parameters").items():
        if len(records) < len(STUDIES["parameters"].runs(label)):
            return f"Not all seeds of the network with {label} parameters are recorded yet."
        if all(map(is_consistent, records)):
            return keep_numbers_together(
                f"The smallest network with {len(records)} consistent seeds has {label} parameters"
                f"{smaller}."
            )
        smaller = f"; of the next smaller one, with {label} parameters, {summary(records)['consistent']} seeds are consistent"
    return "None of these networks is consistent with every seed."


def sensitivity() -> str:
    """Whether a neighbour of step 3's recipe is better: a paragraph in Markdown."""
    study, values, resolved = (
        STUDIES["sensitivity"],
        last_accuracies("sensitivity"),
        holm("sensitivity"),
    )
    recorded = [
        label
        for label, records in study_records("sensitivity").items()
        if records and label != study.reference
    ]
    neighbours = [label for label in recorded if label in values]
    if study.reference not in values or not neighbours:
        return "Not enough seeds are recorded."
    better, worse = (
        [label for label in resolved if sign * difference(values, label, study.reference)[0] > 0]
        for sign in (1, -1)
    )
    best = max(neighbours, key=lambda label: mean(values[label]))
    runs, planned = (
        sum(len(values[label]) for label in neighbours),
        sum(len(study.runs(label)) for label in study.comparisons()),
    )
    failed = [label for label in recorded if label not in values]
    return keep_numbers_together(
        f"{runs} of {planned} runs of the neighbours are recorded. "
        f"After Holm's correction, better than the recipe: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}. "
        + (f"Not every seed trains: {', '.join(failed)}. " if failed else "")
        + f"*{best}* has the highest mean: uncorrected, its difference from the recipe is "
        f"{compare(values, best, study.reference)}."
        + (" So the recipe stays as it is." if runs == planned and not better else "")
    )


def step_3_records() -> list[dict]:
    """The recorded runs of step 3 on the test set. Raises RuntimeError if there is none that trains."""
    records = study_records("steps")["augmentation"]
    if not trained(records):
        raise RuntimeError(
            "no seed of step 3 is recorded with this recipe: run python -m src study steps"
        )
    return records


def headline() -> str:
    """What step 3 reaches over its seeds: three sentences. Raises RuntimeError if no seed is recorded."""
    records = step_3_records()
    histories, found = trained(records), summary(records)
    stable = [first_stable_epoch(history) for history in histories]
    parameters = count_parameters(MODELS[STEPS["augmentation"].model]())
    return keep_numbers_together(
        f"A network of **{parameters:,} parameters** classifies **{found['test']} %** of the test images correctly after "
        f"{len(histories[0])} epochs (mean ± standard deviation over {len(histories)} seeds{found['note']}). "
        f"**{found['consistent']} seeds are consistent**: each of their last five epochs is at 99.40 % or above."
        + (
            f" From epoch {max(stable)} on, every seed stays there."
            if all(stable) and not found["note"]
            else f" The lowest of these epochs is at {found['lowest']} %."
        )
    )


def analysis(step: str, record: Mapping | None = None) -> str:
    """What the measurements of a step say, in Markdown: of its seeds and, if given, of the run of `record`."""
    records = study_records("steps")[step]
    if not trained(records):
        return "No seed of this step is recorded with this recipe."
    points = [_target(step, records)]
    if record:
        points += [_last_epochs(records), _this_run(record)]
    points += [_gap(step), _original(step, records)]
    if step == "regularization":
        points += _parts()
    elif step == "augmentation":
        points += _changes()
    return keep_numbers_together(
        "\n".join(f"- {point}" for point in points) if record else " ".join(points)
    )


def _target(step: str, records: Sequence[Mapping]) -> str:
    values, found, target = (
        [history[-1]["test_accuracy"] for history in trained(records)],
        summary(records),
        TARGETS[step][1],
    )
    (low, high), seeds = _interval(values), f"{len(values)} seed{'s' * (len(values) > 1)}"
    met = (
        mean(values) >= target and len(values) == len(records)
        if target
        else all(map(is_consistent, records))
    )
    return (
        f"**Target {'met' if met else 'missed'}**: over {seeds}, test accuracy is {found['test']} %{found['note']}"
        + (
            f", with a 95 % interval of the mean from {low:.2f} to {high:.2f} %; "
            if len(values) > 1
            else "; "
        )
        + (
            f"the target is {target:.2f} %."
            if target
            else f"{found['consistent']} seeds are consistent."
        )
        + (
            f" The interval contains the target: {seeds} do not resolve whether the true mean reaches it."
            if target and len(values) > 1 and low <= target <= high
            else ""
        )
    )


def _last_epochs(records: Sequence[Mapping]) -> str:
    lasts = [[epoch["test_accuracy"] for epoch in history[-5:]] for history in trained(records)]
    return (
        f"The lowest of the last five epochs of all these seeds is at {summary(records)['lowest']} %. Within the last five "
        f"epochs of a seed, test accuracy varies by {mean(max(last) - min(last) for last in lasts):.2f} pp on average."
    )


def _this_run(record: Mapping) -> str:
    last, tests = (
        record["history"][-1],
        [epoch["test_accuracy"] for epoch in record["history"][-5:]],
    )
    split = "test set" if record["recipe"]["split"] == "test" else "validation split"
    return (
        f"This notebook's run (seed {record['seed']}, apart from the seeds above) ends at {last['train_accuracy']:.2f} % in "
        f"training and **{last['test_accuracy']:.2f} %** on the {split}; its last five epochs lie between {min(tests):.2f} and "
        f"{max(tests):.2f} %: {'consistent' if is_consistent(record) else 'not consistent'}."
    )


def _gap(step: str) -> str:
    if STEPS[step].augmentation:
        return "Training accuracy is measured on augmented images: it cannot be compared with test accuracy."
    gaps = {
        name: [
            history[-1]["train_accuracy"] - history[-1]["test_accuracy"]
            for history in trained(records)
        ]
        for name, records in study_records("steps").items()
    }
    gap = _format_difference(mean(gaps[step]), *_interval(gaps[step]), len(gaps[step]))
    return f"Training accuracy minus test accuracy is {gap}." + (
        f" This gap differs from step 1's by {compare(gaps, step, 'basic')}."
        if step != "basic" and gaps["basic"]
        else ""
    )


def _original(step: str, records: Sequence[Mapping]) -> str:
    if not study_records("original")[step]:
        return "No seed of the original's recipe is recorded."
    original, accuracies = summary(study_records("original")[step]), last_accuracies("original")
    accuracies["ours"] = [history[-1]["test_accuracy"] for history in trained(records)]
    return f"The original's recipe reaches {original['test']} %{original['note']}" + (
        f": this step differs from it by {compare(accuracies, 'ours', step)}."
        if step in accuracies
        else "."
    )


def _parts() -> list[str]:
    parts = last_accuracies("parts")
    return [
        f"On the validation split, batch normalisation contributes {compare(parts, 'all three', 'no batch normalisation')}, "
        f"the scheduler {compare(parts, 'all three', 'no scheduler')}, "
        f"dropout (0.05) {compare(parts, 'all three', 'no dropout')}.",
        f"The original's claim that dropout 0 is best {verdict('dropout', '0')}",
        f"Its claim that step size 5 is best {verdict('step_size', '5')}",
    ]


def _changes() -> list[str]:
    ablation, (first, *_, last) = last_accuracies("ablation"), STUDIES["ablation"].experiments
    if not {first, "+ averaging", last} <= ablation.keys():
        return ["Not enough seeds are recorded to say what each change contributes."]
    without, augmented = (
        summary(study_records("ablation")[label])["consistent"] for label in ("+ averaging", last)
    )
    return [
        f"On the validation split, all changes from step 2 to step 3 contribute {compare(ablation, last, first)}, the four "
        f"transforms of the images {compare(ablation, last, '+ averaging')}.",
        f"There, {without} seeds stay at 99.40 % or above in the last five epochs without the transforms, and {augmented} "
        "seeds with them.",
    ]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a mean (Student's t); infinite for a single value."""
    return (
        tuple(ttest_1samp(values, 0).confidence_interval())
        if len(values) > 1
        else (-math.inf, math.inf)
    )


def keep_numbers_together(text: str) -> str:
    """Join numbers with their units and signs by non-breaking spaces."""
    return re.sub(
        r"(?<=[\d*)]) (?=%|pp\b|±)|(?<=±) (?=\d)|(?<=\d) (?=of \d|seeds\b)|(?<=\d of) (?=\d)",
        "\u00a0",
        text,
    )
