"""The statistics agree with their definitions, and with SciPy where it has another way."""

import math
from statistics import mean, stdev

import numpy as np
import pytest
from conftest import history
from hypothesis import given, strategies
from scipy.stats import beta, t, ttest_ind

from src.evidence import measures


def test_lowest_and_first_stable_epoch():
    assert measures.lowest(history(98.0, 99.5, 99.3, 99.4, 99.6, 99.7)) == 99.3
    assert math.isnan(measures.lowest(history(99.5, 99.5, 99.5, 99.5)))  # fewer than five epochs
    assert measures.first_stable_epoch(history(99.0, 99.5, 99.3, 99.4, 99.6)) == 4
    assert measures.first_stable_epoch(history(99.5, 99.5)) == 1
    assert measures.first_stable_epoch(history(99.5, 99.39)) is None


@pytest.mark.parametrize(
    "record, consistent",
    [
        ({"history": history(98, 99.4, 99.5, 99.5, 99.5, 99.5)}, True),
        ({"history": history(99.5, 99.5, 99.39, 99.5, 99.5)}, False),
        ({"history": history(99.5, 99.5, 99.5, 99.5)}, False),
        ({"history": history(99.5, 99.5, 99.5, 99.5, 99.5), "failed": "!"}, False),
    ],
)
def test_a_run_is_consistent_if_each_of_its_last_five_epochs_is(record, consistent):
    assert measures.is_consistent(record) == consistent


def test_diverged_and_collapsed_runs_have_not_learned():
    good = history(98.0, 99.0)
    runs = [{"history": good}, {"history": history(98.0, 9.8)}, {"history": [], "failed": "!"}]
    assert measures.learned_histories(runs) == [good]


def test_a_difference_has_welchs_interval():
    one, other = [99.31, 99.35, 99.29, 99.40], [99.20, 99.33, 99.10]
    parts = [stdev(sample) ** 2 / len(sample) for sample in (one, other)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    gain = mean(one) - mean(other)
    difference, _ = measures.compare(one, other)
    assert difference == pytest.approx((gain, gain - half, gain + half))
    (_, *ends), p_value = measures.compare([99.1], other)
    assert ends == [-math.inf, math.inf] and p_value == 1
    assert measures.compare([99.5] * 3, [99.25] * 3) == ((0.25, 0.25, 0.25), 0)
    assert measures.compare([99.5] * 3, [99.5] * 3) == ((0, 0, 0), 1)


def test_p_values_agree_with_intervals():
    one, other = [99.31, 99.35, 99.29, 99.40], [99.20, 99.33, 99.10]
    (_, low, high), p_value = measures.compare(one, other)
    assert (p_value < 0.05) == (low > 0 or high < 0)
    shifted = [value - low for value in one]  # the interval now begins at 0
    assert measures.compare(shifted, other)[1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "p_values, survive",
    [
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),
        ([0.03, 0.01], [True, True]),  # 0.01 ≤ 0.05 / 2, 0.03 ≤ 0.05
        ([0.026, 0.03], [False, False]),  # the smallest fails, so all do
        ([], []),
    ],
)
def test_holms_correction(p_values, survive):
    assert measures.survive_holm(p_values) == survive


def test_an_interval_of_a_mean_is_students():
    values = [99.1, 99.3, 99.2, 99.6]
    half = t.ppf(0.975, 3) * stdev(values) / 2
    assert measures.mean_interval(values) == pytest.approx((99.3, 99.3 - half, 99.3 + half))


@given(strategies.integers(0, 100), strategies.integers(0, 100))
def test_a_proportion_has_the_exact_interval_of_clopper_and_pearson(count, others):
    total = max(1, count + others)
    low = 100 * beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = 100 * beta.ppf(0.975, count + 1, total - count) if count < total else 100.0
    assert measures.proportion_interval(count, total) == pytest.approx((low, high), abs=1e-3)


def test_the_detectable_difference_is_the_one_that_is_found_four_times_of_five():
    random, shift = np.random.default_rng(1), measures.detectable_difference(0.05, 10)
    one, other = random.normal(0, 0.05, (2, 2000, 10))
    found = (ttest_ind(one + shift, other, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.04)  # 2,000 draws: ± 0.018
    assert measures.detectable_difference(0.05, 10, comparisons=21) > shift


def test_the_sampling_error_is_that_of_a_binomial():
    assert measures.sampling_error(99.54) == pytest.approx(0.133, abs=0.001)
    assert measures.sampling_error(99.54, 40_000) == pytest.approx(0.066, abs=0.001)
