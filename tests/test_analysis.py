"""The statistics, tables and sentences say what the records say."""

import json

import pytest
from scipy.stats import t

from src.evidence import analysis
from src.evidence.studies import STUDIES, Study, run_key
from src.experiments import BASIC
from src.records import save_record


def history(*accuracies):
    return [{"epoch": epoch, "train_accuracy": 99.0, "test_accuracy": accuracy, "test_loss": 0.1}
            for epoch, accuracy in enumerate(accuracies, 1)]


@pytest.fixture
def one(results, monkeypatch):
    """Records runs of the study "one" with its label "a", by their histories; None is a run that diverged."""
    def save(*histories):
        monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=len(histories)))
        for seed, run in enumerate(histories, 1):
            recipe, _, device, fingerprint = json.loads(run_key(BASIC, seed, "cpu", "bfloat16"))
            save_record("study", {"recipe": {**recipe, "name": "basic"}, "seed": seed, "device": device, "fingerprint": fingerprint,
                                  "history": run or [], **({} if run else {"failed": "!"})})
    return save


def test_first_stable_epoch_is_the_first_without_a_later_fall():
    assert analysis.first_stable_epoch(history(99.0, 99.5, 99.3, 99.4, 99.6)) == 4
    assert analysis.first_stable_epoch(history(99.5, 99.5)) == 1
    assert analysis.first_stable_epoch(history(99.5, 99.39)) is None
    assert analysis.lowest_of_last_five(history(98.0, 99.5, 99.3, 99.4, 99.6, 99.7)) == 99.3


def test_difference_is_welchs_interval():
    one, other = [99.31, 99.35, 99.29, 99.40], [99.20, 99.33, 99.10]
    gain, low, high = analysis.difference({"a": one, "b": other}, "a", "b")
    mean = sum(one) / 4 - sum(other) / 3
    parts = [sum((value - sum(sample) / len(sample)) ** 2 for value in sample) / (len(sample) - 1) / len(sample)
             for sample in (one, other)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert (gain, low, high) == pytest.approx((mean, mean - half, mean + half))
    assert analysis.difference({"a": one, "b": other}, "a", "b", comparisons=5)[1] < low  # wider


def test_a_difference_is_rounded_once_and_says_whether_it_is_resolved():
    assert analysis.compare({"a": [99.324, 99.324], "b": [99.336, 99.336]}, "a", "b") == "−0.01 pp (−0.01 to −0.01)"
    assert analysis.compare({"a": [99.1, 99.5], "b": [99.2, 99.4]}, "a", "b").endswith("; not resolved by 2 seeds)")
    assert analysis.compare({"a": [99.1], "b": [99.2, 99.4]}, "a", "b") == "−0.20 pp (one seed, no interval)"
    assert analysis.compare({"a": [99.1]}, "a", "b") == "unknown (a seed of b is missing or failed)"


@pytest.mark.parametrize("values, found", [
    ({"5": [99.30, 99.31, 99.32], "7": [99.20, 99.21, 99.22]}, "**confirmed**"),
    ({"5": [99.20, 99.21, 99.22], "7": [99.30, 99.31, 99.32]}, "**refuted**"),
    ({"5": [99.20, 99.30, 99.40], "7": [99.25, 99.35, 99.45]}, "**neither confirmed nor refuted**"),
    ({"5": [99.25, 99.35, 99.45], "7": [99.20, 99.30, 99.40]}, "**neither confirmed nor refuted**"),
    ({"5": [99.30]}, "not enough seeds"),
])
def test_verdict_weighs_a_claim_against_its_best_rival(values, found, monkeypatch):
    monkeypatch.setattr(analysis, "last_accuracies", lambda study: values)
    assert found in analysis.verdict("step_size", "5")


def test_gains_are_those_over_the_recipe_before(monkeypatch):
    monkeypatch.setattr(analysis, "last_accuracies", lambda study: {"a": [99.1, 99.1], "b": [99.2, 99.2], "c": [99.1, 99.31]})
    found = analysis.gains("ablation")
    assert found["b"] == pytest.approx((0.1, 0.1, 0.1)) and found["c"][1] < 0 < found["c"][2]


@pytest.mark.parametrize("runs, expected", [
    ([history(98, 99.5, 99.5, 99.5, 99.5, 99.6), history(98, 99.5, 99.4, 99.5, 99.5, 99.5)],
     {"train": "99.00", "test": "99.55 ± 0.07", "lowest": "99.40", "consistent": "2 of 2", "note": ""}),
    ([history(98, 99.5, 99.5, 99.5, 99.5, 99.5), history(98, 99.5, 99.3, 99.5, 99.5, 99.5)],
     {"train": "99.00", "test": "99.50 ± 0.00", "lowest": "99.30", "consistent": "1 of 2", "note": ""}),
    ([history(98, 99.0), history(10, 10.0), None],
     {"train": "99.00", "test": "99.00", "lowest": "0.00", "consistent": "0 of 3", "note": " (1 of 3 seeds train)"}),
    ([None, None], {"train": "–", "test": "–", "lowest": "0.00", "consistent": "0 of 2", "note": " (0 of 2 seeds train)"}),
])
def test_summary_counts_the_consistent_seeds_and_those_that_train(runs, expected, one):
    one(*runs)
    assert analysis.summary("one", "a") == expected
    assert analysis.study_table("one").count("\n") == 2


def test_numbers_and_their_units_stay_together():
    joined = analysis.keep_numbers_together("99.5 ± 0.1 % of 3 of 4 seeds")
    assert joined == "99.5\u00a0±\u00a00.1\u00a0% of 3\u00a0of\u00a04\u00a0seeds"
