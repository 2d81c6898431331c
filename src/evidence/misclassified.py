"""Which images are misclassified: by every seed, by two of them, after a vote, by one of two runs.

A record holds the misclassified images of its run: index and prediction of each. So no network
needs to be trained, or loaded, again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import mean

from scipy.stats import binomtest

Errors = Mapping[int, int]  # prediction by index of the image


def read_errors(record: Mapping) -> Errors:
    """The misclassified images of a run after its last epoch, and what they were taken for."""
    return dict(record["errors"])


def shared_by_all(errors_by_run: Iterable[Errors]) -> dict[int, int]:
    """The images that every run misclassifies, in order, with their most frequent prediction."""
    errors_by_run = list(errors_by_run)
    indices = sorted(set.intersection(*map(set, errors_by_run)))
    predictions = {index: Counter(errors[index] for errors in errors_by_run) for index in indices}
    return {index: counts.most_common(1)[0][0] for index, counts in predictions.items()}


def mean_shared_by_two(errors_by_run: Sequence[Errors]) -> float:
    """The number of images that two runs both misclassify, as a mean over all pairs of runs."""
    pairs = combinations(errors_by_run, 2)
    return mean(len(one.keys() & other.keys()) for one, other in pairs)


def count_errors_of_vote(errors_by_run: Sequence[Errors]) -> int:
    """How many images are misclassified if every run has one vote.

    An image is right if its digit has more votes than any other.
    """
    count = 0
    for index in set().union(*errors_by_run):
        wrong = Counter(errors[index] for errors in errors_by_run if index in errors)
        right = len(errors_by_run) - wrong.total()
        if max(wrong.values()) >= right:
            count += 1
    return count


def mcnemar(one: Errors, other: Errors) -> tuple[int, int, float]:
    """The images that only `one` or only `other` misclassifies, and the p-value of their numbers.

    If both were equally good, an image that only one of them gets right would be an error of either
    with the same probability. The test is exact and two-sided (McNemar, 1947).
    """
    only_one = len(one.keys() - other.keys())
    only_other = len(other.keys() - one.keys())
    total = only_one + only_other
    return only_one, only_other, float(binomtest(only_one, total).pvalue) if total else 1.0
