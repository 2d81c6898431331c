"""What the records say, as the sentences and tables that README and notebooks share."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from .experiments import STEPS, recorded, run_key
from .plots import TARGET
from .studies import STUDIES, study_records


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
    below = [epoch["epoch"] for epoch in history if epoch["test_accuracy"] < TARGET]
    first = max(below, default=0) + 1
    return first if first <= len(history) else None


def gap(*histories: Sequence[Mapping]) -> str:
    """How far training ends from the test, in the mean of these runs: one sentence."""
    ahead = mean(history[-1]["train_accuracy"] - history[-1]["test_accuracy"] for history in histories)
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


def result(history: Sequence[Mapping]) -> str:
    """How a run ended: a phrase in Markdown."""
    last = history[-1]
    return (f"After {last['epoch']} epochs: training accuracy **{last['train_accuracy']:.2f} %**, test accuracy "
            f"**{last['test_accuracy']:.2f} %** (worst of the last five epochs {worst_of_last_five(history):.2f} %)")


def over_seeds(study: str, label: str) -> str:
    """What a recipe reaches on the test set over its seeds, and how many are consistent: a phrase in Markdown."""
    records = study_records(study)[label]
    histories = [record["history"] for record in records if "failed" not in record]
    if not histories:
        return f"all {len(records)} seeds diverged"
    train, test = ([history[-1][f"{part}_accuracy"] for history in histories] for part in ("train", "test"))
    worst = [worst_of_last_five(history) for history in histories]
    good = [accuracy for accuracy in test if accuracy > 50]  # a network that has lost its way stays near 10 %
    text = (f"train {mean(train):.2f} %, test **{spread(test)} %** over {len(histories)} seeds, worst of the last five epochs "
            f"{min(worst):.2f} %, {sum(accuracy >= TARGET for accuracy in worst)} of {len(histories)} seeds consistent")
    if good and len(good) < len(test):
        text += f"; {len(test) - len(good)} of {len(test)} end no better than chance, the rest at {spread(good)} %"
    return text + (f"; {len(records) - len(test)} more diverged" if len(test) < len(records) else "")


def precision_gap() -> str:
    """What bfloat16 and the channels last cost in step 3 against plain float32, over paired seeds: two sentences."""
    study = study_records("precision")
    pairs = [pair for pair in zip(*study.values()) if not any("failed" in record for record in pair)]
    if not pairs:
        return "No seed of step 3 trains to the end in every precision."
    accuracies = {label: [record["history"][-1]["test_accuracy"] for record in runs] for label, runs in zip(study, zip(*pairs))}
    fast, *_, plain = accuracies
    return (f"Over {len(pairs)} paired seeds of step 3, of the test images: "
            f"{'; '.join(f'{label} {spread(values)} %' for label, values in accuracies.items())}. "
            f"Between {fast} and {plain}: {_points(mean(accuracies[fast]) - mean(accuracies[plain]))}.")


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
    error = sum(stdev(values[label]) ** 2 / len(values[label]) for label in (one, other)) ** 0.5
    gain = mean(values[one]) - mean(values[other])
    return gain, abs(gain) > 3 * error


def gain(study: str, one: str, other: str) -> str:
    """By how many points `one` is above `other` in a study, and whether that is within the noise."""
    return _gain(last_accuracies(study), one, other)


def gains(study: str) -> dict[str, str]:
    """The `gain` of each label of a study over the one before it."""
    values = last_accuracies(study)
    labels = list(values)
    return {label: _gain(values, label, before) for before, label in zip(labels, labels[1:])}


def _gain(values: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    points, clear = difference(values, one, other)
    return f"{_points(points)}{'' if clear else ' (within the noise)'}"


def _points(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f} points"  # + 0.0: no negative zero


def verdict(study: str, claim: str) -> str:
    """Whether the setting `claim` is the best of a study: one sentence in Markdown."""
    values = last_accuracies(study)
    rival = max((label for label in values if label != claim), key=lambda label: mean(values[label]))
    gain, clear = difference(values, claim, rival)
    found = "**confirmed**" if gain > 0 else "**refuted**"
    if not clear:
        found = "within the noise: the claim is neither confirmed nor refuted"
    return (f"{claim} reaches {spread(values[claim])} % on the validation split, its strongest rival, {rival}, "
            f"{spread(values[rival])} %: a difference of {_points(gain)}, {found}.")
