"""What the numbers of several runs say: pure functions of accuracies in % and of counts."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

from scipy.stats import binomtest, t, ttest_1samp, ttest_ind

from ..experiments import TARGET

COLLAPSED = 50.0  # %: a run that ends at or below has not learned, or has lost what it had learned
Estimate = tuple[float, float, float]  # a value, and the ends of its 95 % confidence interval


def learned_histories(records: Sequence[Mapping]) -> list[list[dict]]:
    """The histories of the runs that neither diverge nor collapse."""
    return [
        record["history"]
        for record in records
        if "failed" not in record and record["history"][-1]["test_accuracy"] > COLLAPSED
    ]


def last(history: Sequence[Mapping]) -> float:
    """The accuracy of the last epoch."""
    return history[-1]["test_accuracy"]


def lowest(history: Sequence[Mapping]) -> float:
    """The lowest accuracy of the last five epochs; NaN for a run of fewer epochs."""
    return min(epoch["test_accuracy"] for epoch in history[-5:]) if len(history) >= 5 else math.nan


def is_consistent(record: Mapping) -> bool:
    """Whether each of the last five epochs of a run reaches 99.4 %."""
    return "failed" not in record and lowest(record["history"]) >= TARGET


def highest(history: Sequence[Mapping]) -> float:
    """The highest accuracy of the last five epochs."""
    return max(epoch["test_accuracy"] for epoch in history[-5:])


def first_stable_epoch(history: Sequence[Mapping]) -> int | None:
    """The first epoch from which every epoch reaches 99.4 %; None if the last one does not."""
    below = [epoch["epoch"] for epoch in history if epoch["test_accuracy"] < TARGET]
    first = max(below, default=0) + 1
    return first if first <= len(history) else None


def mean_interval(values: Sequence[float]) -> Estimate:
    """A mean with its interval (Student's t); infinite for a single value."""
    if len(values) < 2:
        return mean(values), -math.inf, math.inf
    low, high = ttest_1samp(values, 0).confidence_interval()
    return mean(values), float(low), float(high)


def compare(one: Sequence[float], other: Sequence[float]) -> tuple[Estimate, float]:
    """The difference of two means with its interval, and its two-sided p-value.

    Welch's t, unequal variances. If a sample has a single value, the interval is infinite, and the
    p-value is 1.
    """
    difference = mean(one) - mean(other)
    if min(len(one), len(other)) < 2:
        return (difference, -math.inf, math.inf), 1.0
    if len(set(one)) == 1 and len(set(other)) == 1:  # without variance, scipy's test is undefined
        return (difference, difference, difference), float(difference == 0)
    test = ttest_ind(one, other, equal_var=False)
    low, high = test.confidence_interval()
    return (difference, float(low), float(high)), float(test.pvalue)


def survive_holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several comparisons survive the correction for their number by Holm (1979)."""
    survives = [False] * len(p_values)
    by_size = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(by_size):
        if p_values[index] > level / (len(p_values) - rank):
            break
        survives[index] = True
    return survives


def detectable_difference(deviation: float, seeds: int, comparisons: int = 1) -> float:
    """The difference that a comparison of two samples finds with a power of 80 %.

    `deviation` is the standard deviation of both, `seeds` the size of each. This is the usual
    approximation by quantiles of t; Bonferroni for several `comparisons`.
    """
    freedom = 2 * seeds - 2
    quantiles = t.ppf(1 - 0.025 / comparisons, freedom) + t.ppf(0.8, freedom)
    return float(quantiles * deviation * math.sqrt(2 / seeds))


def proportion_interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper and Pearson), in %."""
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return 100 * float(interval.low), 100 * float(interval.high)


def sampling_error(accuracy: float, images: int = 10_000) -> float:
    """Half of the 95 % interval of an accuracy in %, over other samples of as many images."""
    share = accuracy / 100
    return 196 * math.sqrt(share * (1 - share) / images)
