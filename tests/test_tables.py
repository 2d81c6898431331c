"""The tables say what the records say: compared with a computation of its own."""

import json
import re
from dataclasses import asdict, replace
from statistics import mean, stdev

import pytest
from conftest import ROOT, history

from src.evidence import tables
from src.evidence.runner import run_key
from src.evidence.studies import STUDIES, Study
from src.experiments import AUGMENTATION, BASIC
from src.store import save_records


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


GOOD, LOW = history(98, 99.5, 99.5, 99.5, 99.5, 99.6), history(98, 99.5, 99.4, 99.5, 99.5, 99.5)
BELOW, COLLAPSED = history(98, 99.5, 99.3, 99.5, 99.5, 99.5), history(10, 10, 10, 10, 10)


@pytest.mark.parametrize(
    "runs, row",
    [
        ([GOOD, LOW], "99.45 ± 0.07 | 2 of 2 (16 to 100 %) | 99.55 ± 0.07"),
        ([GOOD, BELOW], "99.40 ± 0.14 | 1 of 2 (1 to 99 %) | 99.55 ± 0.07"),
        (
            [LOW, COLLAPSED, None],
            "99.40 (1 of 3 seeds train) | 1 of 3 (1 to 91 %) | 99.50 (1 of 3 seeds train)",
        ),
        ([None], "– (0 of 1 seeds train) | 0 of 1 (0 to 98 %) | – (0 of 1 seeds train)"),
        ([history(99.0, 99.2)], "– | – | 99.20"),
    ],
)
def test_a_study_table_counts_the_consistent_seeds_and_those_that_train(runs, row, one):
    one(*runs)
    assert tables.study_table("one").splitlines()[2:] == [f"| a | {row} | bfloat16, here |"]


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


def recorded(seeds=None, **changes):
    """The lowest and the last accuracies of step 3 with these changes, from the file itself."""
    recipe = replace(AUGMENTATION, precision="bfloat16", **changes)
    wanted = json.loads(json.dumps({**asdict(recipe), "name": None}))
    with open(ROOT / "results" / "study.jsonl", encoding="utf-8") as lines:
        found = [record for line in lines if (record := json.loads(line))]
    runs = [run for run in found if {**run["recipe"], "name": None} == wanted]
    runs = sorted(runs, key=lambda run: run["seed"])[:seeds]
    accuracies = [[epoch["test_accuracy"] for epoch in run["history"]] for run in runs]
    return [min(values[-5:]) for values in accuracies], [values[-1] for values in accuracies]


def test_the_headline_is_found_by_another_way():
    lowest, last = recorded()
    consistent = sum(value >= 99.4 for value in lowest)
    expected = f"**{mean(last):.2f} ± {stdev(last):.2f}** | **{consistent} of {len(last)}**"
    assert expected in tables.results_table()


def test_the_chain_is_found_by_another_way():
    parts = AUGMENTATION.augmentation
    interpolation = {"interpolation": parts["interpolation"]}
    chain = [{"augmentation": None, "ema_decay": None}, {"augmentation": None}]
    for count in (1, 2, 3, 4):
        chain.append({"augmentation": {**dict([*parts.items()][:count]), **interpolation}})
    rows = tables.study_table("ablation").splitlines()[3:]  # below step 2
    for changes, row in zip(chain, rows, strict=True):
        lowest, last = recorded(split="validation", **changes)
        consistent = sum(value >= 99.4 for value in lowest)
        cells = row.split(" | ")
        assert len(lowest) == 10 and cells[1] == f"{mean(lowest):.2f} ± {stdev(lowest):.2f}"
        assert cells[3].startswith(f"{consistent} of 10 (")
        assert cells[4] == f"{mean(last):.2f} ± {stdev(last):.2f}"


def test_the_folds_are_found_by_another_way():
    splits = [*(f"fold {number}" for number in range(1, 6)), "validation"]
    folds = [recorded(seeds=5, split=split) for split in splits]
    rows = tables.study_table("folds").splitlines()[2:]
    for (lowest, last), row in zip(folds, rows, strict=True):
        consistent = sum(value >= 99.4 for value in lowest)
        cells = row.split(" | ")
        assert len(lowest) == 5 and cells[1] == f"{mean(lowest):.2f} ± {stdev(lowest):.2f}"
        assert cells[2].startswith(f"{consistent} of 5 (")
        assert cells[3] == f"{mean(last):.2f} ± {stdev(last):.2f}"
    images = [mean(values) for values in zip(*(last for _, last in folds), strict=True)]
    facts = tables.facts()
    assert f"last epoch (%) | {mean(images):.2f} ± {stdev(images):.2f} |" in facts
    assert f"{sum(value >= 99.4 for lowest, _ in folds[:5] for value in lowest)} of 25" in facts


def test_the_comments_beside_the_recipes_hold_what_was_measured():
    source = (ROOT / "src" / "experiments.py").read_text(encoding="utf-8")
    comments = re.findall(
        r"^# (\S+ ± \S+) %.*?(\d+ of \d+) seeds consistent$", source, re.MULTILINE
    )
    rows = tables.results_table().splitlines()[2:]
    for (accuracy, consistent), row in zip(comments, rows, strict=True):
        assert f"**{accuracy}**" in row and f"**{consistent}**" in row
