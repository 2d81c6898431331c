"""The sentences and tables say what the records say, and what is within the noise."""

from dataclasses import asdict

import pytest

from src import findings, records
from src.experiments import BASIC
from src.studies import STUDIES, Study


def history(*accuracies):
    return [{"epoch": epoch, "train_accuracy": 99.0, "test_accuracy": accuracy} for epoch, accuracy in enumerate(accuracies, 1)]


def test_steady_from_is_the_first_epoch_without_a_later_fall():
    assert findings.steady_from(history(99.0, 99.5, 99.3, 99.4, 99.6)) == 4
    assert findings.steady_from(history(99.5, 99.5)) == 1
    assert findings.steady_from(history(99.5, 99.39)) is None
    assert findings.worst_of_last_five(history(98.0, 99.5, 99.3, 99.4, 99.6, 99.7)) == 99.3


@pytest.mark.parametrize("values, found", [
    ({"5": [99.30, 99.31, 99.32], "7": [99.20, 99.21, 99.22]}, "**confirmed**"),
    ({"5": [99.20, 99.21, 99.22], "7": [99.30, 99.31, 99.32]}, "**refuted**"),
    ({"5": [99.20, 99.30, 99.40], "7": [99.25, 99.35, 99.45]}, "within the noise"),
    ({"5": [99.25, 99.35, 99.45], "7": [99.20, 99.30, 99.40]}, "within the noise"),
])
def test_verdict_weighs_a_claim_against_the_noise(values, found, monkeypatch):
    monkeypatch.setattr(findings, "last_accuracies", lambda study: values)
    assert found in findings.verdict("step_size", "5")


def test_gains_are_those_over_the_recipe_before(monkeypatch):
    monkeypatch.setattr(findings, "last_accuracies", lambda study: {
        "a": [99.1, 99.1], "b": [99.2, 99.2], "c": [99.1, 99.31]})
    assert findings.gains("path") == {"b": "+0.10 points", "c": "+0.00 points (within the noise)"}


@pytest.mark.parametrize("runs, expected", [
    ([history(98, 99.5, 99.5, 99.5, 99.5, 99.6), history(98, 99.5, 99.4, 99.5, 99.5, 99.5)],
     "train 99.00 %, test **99.55 ± 0.07 %** over 2 seeds, worst of the last five epochs 99.40 %, 2 of 2 seeds consistent"),
    ([history(98, 99.5, 99.5, 99.5, 99.5, 99.5), history(98, 99.5, 99.3, 99.5, 99.5, 99.5)],
     "train 99.00 %, test **99.50 ± 0.00 %** over 2 seeds, worst of the last five epochs 99.30 %, 1 of 2 seeds consistent"),
    ([history(98, 99.0), history(10, 10.0)],
     "train 99.00 %, test **54.50 ± 62.93 %** over 2 seeds, worst of the last five epochs 10.00 %, 0 of 2 seeds consistent; "
     "1 of 2 end no better than chance, the rest at 99.00 %"),
])
def test_over_seeds_counts_the_consistent_and_those_that_are_lost(runs, expected, results, monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=2))
    for seed, run in enumerate(runs, 1):
        records.save("study", {"version": records.VERSION, "recipe": asdict(BASIC), "seed": seed, "history": run})
    assert findings.over_seeds("one", "a") == expected


def test_over_seeds_of_seeds_that_all_diverged(results, monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=2))
    for seed in (1, 2):
        records.save("study", {"version": records.VERSION, "recipe": asdict(BASIC), "seed": seed, "history": [], "failed": "!"})
    assert findings.over_seeds("one", "a") == "all 2 seeds diverged"
