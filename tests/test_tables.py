"""The tables say what the records say: compared with a computation of its own."""

import json
import re
from statistics import mean, stdev

import pytest

from src.evidence import tables
from src.evidence.runner import run_key
from src.evidence.studies import STUDIES, Study
from src.experiments import BASIC
from src.store import save_records

from conftest import ROOT  # isort: skip


def history(*accuracies):
    rest = {"train_accuracy": 99.0, "test_loss": 0.1, "train_loss": 0.1, "seconds": 1.0}
    return [
        {"epoch": epoch, "test_accuracy": accuracy, **rest}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


@pytest.fixture
def one(results, monkeypatch):
    """Records runs of the study "one" with its label "a", by their histories; None diverged."""

    def save(*histories):
        study = Study("?", "x", {"a": BASIC}, seeds=len(histories))
        monkeypatch.setitem(STUDIES, "one", study)
        for seed, run in enumerate(histories, 1):
            recipe, _, device, fingerprint = json.loads(run_key(BASIC, seed, "cpu", "bfloat16"))
            record = {"recipe": {**recipe, "name": "basic"}, "seed": seed, "device": device}
            record |= {"fingerprint": fingerprint, "history": run or [], "device_name": "here"}
            record = record if run else {**record, "failed": "!"}
            save_records("study", [record], local=False)

    return save


@pytest.mark.parametrize(
    "runs, row",
    [
        (
            [history(98, 99.5, 99.5, 99.5, 99.5, 99.6), history(98, 99.5, 99.4, 99.5, 99.5, 99.5)],
            "| a | 99.45 ± 0.07 | 2 of 2 (16 to 100 %) | 99.55 ± 0.07 |",
        ),
        (
            [history(98, 99.5, 99.5, 99.5, 99.5, 99.5), history(98, 99.5, 99.3, 99.5, 99.5, 99.5)],
            "| a | 99.40 ± 0.14 | 1 of 2 (1 to 99 %) | 99.50 ± 0.00 |",
        ),
        (
            [history(99, 99, 99, 99, 99), history(10, 10, 10, 10, 10), None],
            "| a | 99.00 (1 of 3 seeds train) | 0 of 3 (0 to 71 %) | 99.00 (1 of 3 seeds train) |",
        ),
        (
            [None, None],
            "| a | – (0 of 2 seeds train) | 0 of 2 (0 to 84 %) | – (0 of 2 seeds train) |",
        ),
        ([history(99.0, 99.2)], "| a | – | – | 99.20 |"),
    ],
)
def test_a_study_table_counts_the_consistent_seeds_and_those_that_train(runs, row, one):
    one(*runs)
    assert tables.study_table("one").splitlines()[2:] == [f"{row} bfloat16, here |"]


@pytest.mark.parametrize(
    "difference, text",
    [
        ((-0.012, -0.012, -0.012), "−0.01 (−0.01 to −0.01)"),
        ((0.18, 0.13, 0.23), "+0.18 (+0.13 to +0.23)"),
        ((0.0, -0.28, 0.28), "+0.00 (−0.28 to +0.28), not resolved"),
        ((-0.04, -0.08, -0.001), "−0.04 (−0.08 to +0.00), not resolved"),  # as it is shown
        ((-0.2, -float("inf"), float("inf")), "−0.20 (one seed)"),
        ((float("nan"),) * 3, "–"),
    ],
)
def test_a_difference_is_rounded_once_and_says_whether_it_is_resolved(difference, text):
    assert tables.format_difference(*difference) == text


def test_a_study_compares_with_its_reference(monkeypatch):
    values = {"a": [99.1, 99.12], "b": [99.2, 99.22], "c": [99.1, 99.33]}  # no seed of d
    monkeypatch.setattr(tables, "accuracies", lambda study, measure: values)
    for reference, expected in (
        ("the row above", {"b": 0.1, "c": 0.005}),
        ("a", {"b": 0.1, "c": 0.105}),
        (None, {}),
    ):
        study = Study("?", "x", dict.fromkeys("abcd", BASIC), reference)
        monkeypatch.setitem(STUDIES, "one", study)
        found = {label: gain[0] for label, gain in tables.differences("one").items()}
        assert found == pytest.approx(expected)


def recorded(**wanted):
    """The histories of study.jsonl whose recipes have these values, in bfloat16, by seeds."""
    with open(ROOT / "results" / "study.jsonl", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [
        record["history"]
        for record in sorted(records, key=lambda record: record["seed"])
        if record["recipe"]["precision"] == "bfloat16"
        and all(record["recipe"].get(name) == value for name, value in wanted.items())
    ]


AVERAGED = {"model": "AugmentedNet", "model_args": {}, "ema_decay": 0.998, "epochs": 15}
SGD = {"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0002}
TRANSFORMS = {"degrees": 10, "translate": [1 / 28, 1 / 28], "scale": [0.9, 1.1], "shear": 6}
TRANSFORMS["interpolation"] = "nearest"
CYCLE = {"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False}


def test_the_headline_is_found_by_another_way():
    runs = recorded(**AVERAGED, augmentation=TRANSFORMS, optimizer_args=SGD, batch_size=128,
                    scheduler_args=CYCLE, split="test")  # fmt: skip
    last = [run[-1]["test_accuracy"] for run in runs]
    consistent = sum(min(epoch["test_accuracy"] for epoch in run[-5:]) >= 99.4 for run in runs)
    expected = f"**{mean(last):.2f} ± {stdev(last):.2f}** | **{consistent} of {len(runs)}**"
    assert expected in tables.results_table()


def test_the_chain_is_found_by_another_way():
    rows = [line.split(" | ") for line in tables.study_table("ablation").splitlines()[2:]]
    plain = recorded(**{**AVERAGED, "ema_decay": None}, optimizer_args=SGD, augmentation=None,
                     split="validation")  # fmt: skip
    averaged = recorded(**AVERAGED, optimizer_args=SGD, augmentation=None, split="validation")
    for row, runs in ((rows[1], plain), (rows[2], averaged)):
        lowest = [min(epoch["test_accuracy"] for epoch in run[-5:]) for run in runs]
        assert len(runs) == 10 and row[1] == f"{mean(lowest):.2f} ± {stdev(lowest):.2f}"
        consistent = sum(value >= 99.4 for value in lowest)
        assert row[3].startswith(f"{consistent} of 10 (")


def test_the_comments_beside_the_recipes_hold_what_was_measured():
    source = (ROOT / "src" / "experiments.py").read_text(encoding="utf-8")
    comments = re.findall(
        r"^# (\S+ ± \S+) %.*?(\d+ of \d+) seeds consistent$", source, re.MULTILINE
    )
    rows = tables.results_table().splitlines()[2:]
    for (accuracy, consistent), row in zip(comments, rows, strict=True):
        assert f"**{accuracy}**" in row and f"**{consistent}**" in row
