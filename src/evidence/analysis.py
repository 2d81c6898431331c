"""What the records say: the statistics, tables and sentences that the READMEs and the notebooks share."""

import math
import re
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from scipy.stats import ttest_ind

from ..experiments import STEPS
from ..models import MODELS, count_parameters
from ..plots import TARGET
from ..records import load_records
from .studies import PLATFORMS, STUDIES, run_key, study_records

COLLAPSED = 50.0  # % accuracy: a run that ends at or below has not learned, or has lost what it had learned


def seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    keys = {run_key(STEPS[step], 1, *platform) for platform in PLATFORMS}
    found = [record for key, record in load_records("runs").items() if key in keys]
    if not found:
        raise RuntimeError(f"there is no record of {step} with seed 1: create it with python -m src train {step}")
    return found[-1]


def lowest_of_last_five(history: Sequence[Mapping]) -> float:
    """The lowest test accuracy in % of the last five epochs."""
    return min(epoch["test_accuracy"] for epoch in history[-5:])


def first_stable_epoch(history: Sequence[Mapping]) -> int | None:
    """The first epoch from which every epoch is at 99.4 % or above; None if the last one is not."""
    first = max((epoch["epoch"] for epoch in history if epoch["test_accuracy"] < TARGET), default=0) + 1
    return first if first <= len(history) else None


def trained(records: Sequence[Mapping]) -> list[list[dict]]:
    """The histories of the runs that neither diverge nor collapse."""
    return [record["history"] for record in records
            if "failed" not in record and record["history"][-1]["test_accuracy"] > COLLAPSED]


def last_accuracies(study: str) -> dict[str, list[float]]:
    """The accuracies in % of the last epoch, for each label of a study with recorded seeds that all train."""
    return {label: [history[-1]["test_accuracy"] for history in trained(records)]
            for label, records in study_records(study).items() if 0 < len(records) == len(trained(records))}


def format_mean_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation with two decimals; of a single value, the value."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def difference(values: Mapping[str, Sequence[float]], one: str, other: str, comparisons: int = 1) -> tuple[float, float, float]:
    """The difference of the means of two labels, and its 95 % confidence interval (Welch's t): difference, low, high.

    The interval is corrected for the number of `comparisons` (Bonferroni). It is infinite if a label has a single value.
    """
    gain = mean(values[one]) - mean(values[other])
    if min(len(values[one]), len(values[other])) < 2:
        return gain, -math.inf, math.inf
    if len({*values[one]}) == len({*values[other]}) == 1:  # without variance, scipy's interval is undefined
        return gain, gain, gain
    interval = ttest_ind(values[one], values[other], equal_var=False).confidence_interval(1 - 0.05 / comparisons)
    return gain, float(interval.low), float(interval.high)


def compare(values: Mapping[str, Sequence[float]], one: str, other: str, comparisons: int = 1) -> str:
    """The `difference` in percentage points with its interval, and whether so many seeds resolve it."""
    if missing := [label for label in (one, other) if label not in values]:
        return f"unknown (a seed of {missing[0]} is missing or failed)"
    numbers = difference(values, one, other, comparisons)
    gain, low, high = (f"{round(number, 2) + 0.0:+.2f}".replace("-", "−") for number in numbers)  # + 0.0: no negative zero
    if math.isinf(numbers[1]):
        return f"{gain} pp (one seed, no interval)"
    seeds = min(len(values[one]), len(values[other]))
    return f"{gain} pp ({low} to {high}{f'; not resolved by {seeds} seeds' if numbers[1] <= 0 <= numbers[2] else ''})"


def gains(study: str) -> dict[str, tuple[float, float, float]]:
    """For each label of `last_accuracies` but the first, the `difference` from the one before it."""
    values = last_accuracies(study)
    return {label: difference(values, label, before) for before, label in zip(values, list(values)[1:])}


def summary(study: str, label: str) -> dict[str, str]:
    """What a recipe reaches over its seeds, in %: `train`, `test`, `lowest` (of the last five epochs), `consistent`, `note`.

    If some seeds diverge or collapse, `note` says how many train; `train` and `test` are then of those.
    """
    records = study_records(study)[label]
    good, total = trained(records), len(records)
    lowest = [lowest_of_last_five(record["history"]) if record["history"] else 0.0 for record in records]
    return {"train": f"{mean(history[-1]['train_accuracy'] for history in good):.2f}" if good else "–",
            "test": format_mean_std([history[-1]["test_accuracy"] for history in good]) if good else "–",
            "lowest": f"{min(lowest):.2f}" if lowest else "–",
            "consistent": f"{sum(accuracy >= TARGET for accuracy in lowest)} of {total}",
            "note": "" if len(good) == total else f" ({len(good)} of {total} seeds train)"}


def study_table(study: str) -> str:
    """A study as a Markdown table: the last epoch over the recorded seeds, and the difference from the reference."""
    plan, values, before = STUDIES[study], last_accuracies(study), None
    if not any(study_records(study).values()):
        return "No run of this study is recorded yet."
    split = next(iter(plan.experiments.values())).split
    header = [plan.setting, "seeds", f"{split} accuracy (%)", "lowest of the last five epochs (%)", "loss", "training accuracy (%)"]
    if plan.reference:
        header.insert(3, f"difference from {plan.reference} (95 % interval)")
    rows = [header, ["---"] * len(header)]
    for label, records in study_records(study).items():
        found, good = summary(study, label), trained(records)
        loss = f"{mean(history[-1]['test_loss'] for history in good):.4f}" if good else "–"
        rows.append([label, str(len(records)), found["test"] + found["note"], found["lowest"], loss, found["train"]])
        if plan.reference:
            compared = before if plan.reference == "the row above" else plan.reference
            rows[-1].insert(3, compare(values, label, compared) if compared != label and {compared, label} <= {*values} else "–")
        before = label
    return keep_numbers_together("\n".join(f"| {' | '.join(row)} |" for row in rows))


def verdict(study: str, claim: str) -> str:
    """Whether the setting `claim` is the best of a study: the end of a sentence, in Markdown."""
    values = last_accuracies(study)
    rivals = [label for label in values if label != claim]
    if claim not in values or not rivals:
        return "cannot be tested: not enough seeds are recorded."
    rival = max(rivals, key=lambda label: mean(values[label]))
    _, low, high = difference(values, claim, rival, len(rivals))
    found = "confirmed" if low > 0 else "refuted" if high < 0 else "neither confirmed nor refuted"
    return (f"is **{found}**: its difference from the best other value, {rival}, is {compare(values, claim, rival, len(rivals))}, "
            f"with the interval corrected for {len(rivals)} comparisons.")


def headline() -> str:
    """What step 3 reaches over its seeds: three sentences. Raises RuntimeError if no seed is recorded."""
    histories, found = trained(study_records("steps")["augmentation"]), summary("steps", "augmentation")
    if not histories:
        raise RuntimeError("no seed of step 3 is recorded with this recipe: run python -m src study steps")
    stable = [first_stable_epoch(history) for history in histories]
    parameters = count_parameters(MODELS[STEPS["augmentation"].model]())
    return keep_numbers_together(
        f"A network of **{parameters:,} parameters** classifies **{found['test']} %** of the test images correctly after "
        f"{len(histories[0])} epochs (mean ± standard deviation over {len(histories)} seeds{found['note']}). "
        f"**{found['consistent']} seeds are consistent**: each of their last five epochs is at 99.40 % or above."
        + (f" From epoch {max(stable)} on, every seed stays there." if all(stable) and not found["note"] else
           f" The lowest of these epochs is at {found['lowest']} %."))


def analysis(step: str, record: Mapping | None = None) -> str:
    """What the measurements of a step say, in Markdown: of its seeds and, if given, of the run of `record`."""
    seeds, ours, original = study_records("steps")[step], summary("steps", step), summary("original", step)
    theirs, points = f"{original['test']} %{original['note']}", ["No seed of this step is recorded with this recipe."]
    if good := trained(seeds):
        ahead = mean(history[-1]["train_accuracy"] - history[-1]["test_accuracy"] for history in good)
        points = [f"Training accuracy ends {abs(ahead):.2f} pp {'above' if ahead > 0 else 'below'} test accuracy."]
    if step == "basic":
        points += ["The learning rate never falls, and accuracy fluctuates from epoch to epoch.",
                   f"With the original's learning rate, 0.05, test accuracy is {theirs}."]
    elif step == "regularization":
        parts = last_accuracies("parts")
        points += [f"On the validation split, batch normalisation contributes "
                   f"{compare(parts, 'all three', 'no batch normalisation')}, the scheduler "
                   f"{compare(parts, 'all three', 'no scheduler')}, dropout (0.05) {compare(parts, 'all three', 'no dropout')}.",
                   f"The original's claim that dropout 0 is best {verdict('dropout', '0')}",
                   f"Its claim that step size 5 is best {verdict('step_size', '5')}"]
    else:
        ablation, (first, *_, last) = last_accuracies("ablation"), STUDIES["ablation"].experiments
        points += [f"On the validation split, all changes from step 2 to step 3 contribute {compare(ablation, last, first)}, "
                   f"the four transforms of the images {compare(ablation, last, '+ averaging')}."]
    if record:
        last, tests = record["history"][-1], [epoch["test_accuracy"] for epoch in record["history"][-5:]]
        points = [f"This run (seed {record['seed']}) ends at {last['train_accuracy']:.2f} % in training and "
                  f"**{last['test_accuracy']:.2f} %** on the test set; its last five epochs lie between {min(tests):.2f} and "
                  f"{max(tests):.2f} %: {'consistent' if min(tests) >= TARGET else 'not consistent'}.",
                  f"Over {len(seeds)} seeds, this step reaches {ours['test']} %{ours['note']}; the lowest of the last five "
                  f"epochs is {ours['lowest']} %, and {ours['consistent']} seeds are consistent. The original's recipe reaches "
                  f"{theirs}.", *points]
    return keep_numbers_together("\n".join(f"- {point}" for point in points) if record else " ".join(points))


def keep_numbers_together(text: str) -> str:
    """Join numbers with their units and signs by non-breaking spaces."""
    return re.sub(r"(?<=[\d*)]) (?=%|pp\b|±)|(?<=±) (?=\d)|(?<=\d) (?=of \d|seeds\b)|(?<=\d of) (?=\d)", "\u00a0", text)
