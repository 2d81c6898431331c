"""The statistics, tables and sentences say what the records say."""

import json
from statistics import stdev

import pytest
from scipy.stats import t, ttest_ind

from src.evidence import analysis
from src.evidence.studies import STUDIES, Study, run_key
from src.experiments import BASIC
from src.records import save_record


def history(*accuracies):
    return [
        {"epoch": epoch, "train_accuracy": 99.0, "test_accuracy": accuracy, "test_loss": 0.1}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


@pytest.fixture
def one(results, monkeypatch):
    """Records runs of the study "one" with its label "a", by their histories; None is a run that diverged."""

    def save(*histories):
        monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=len(histories)))
        for seed, run in enumerate(histories, 1):
            recipe, _, device, fingerprint = json.loads(run_key(BASIC, seed, "cpu", "bfloat16"))
            save_record(
                "study",
                {
                    "recipe": {**recipe, "name": "basic"},
                    "seed": seed,
                    "device": device,
                    "fingerprint": fingerprint,
                    "history": run or [],
                    **({} if run else {"failed": "!"}),
                },
            )

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
    parts = [
        sum((value - sum(sample) / len(sample)) ** 2 for value in sample)
        / (len(sample) - 1)
        / len(sample)
        for sample in (one, other)
    ]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert (gain, low, high) == pytest.approx((mean, mean - half, mean + half))
    assert analysis.difference({"a": one, "b": other}, "a", "b", comparisons=5)[1] < low  # wider


def test_a_difference_is_rounded_once_and_says_whether_it_is_resolved():
    assert (
        analysis.compare({"a": [99.324, 99.324], "b": [99.336, 99.336]}, "a", "b")
        == "−0.01 pp (−0.01 to −0.01)"
    )
    assert analysis.compare({"a": [99.1, 99.5], "b": [99.2, 99.4]}, "a", "b").endswith(
        "; not resolved by 2 seeds)"
    )
    assert (
        analysis.compare({"a": [99.1], "b": [99.2, 99.4]}, "a", "b")
        == "−0.20 pp (one seed, no interval)"
    )
    assert analysis.compare({"a": [99.1]}, "a", "b") == "unknown (a seed of b is missing or failed)"


@pytest.mark.parametrize(
    "values, found",
    [
        ({"5": [99.30, 99.31, 99.32], "7": [99.20, 99.21, 99.22]}, "**confirmed**"),
        ({"5": [99.20, 99.21, 99.22], "7": [99.30, 99.31, 99.32]}, "**refuted**"),
        (
            {"5": [99.20, 99.30, 99.40], "7": [99.25, 99.35, 99.45]},
            "**neither confirmed nor refuted**",
        ),
        (
            {"5": [99.25, 99.35, 99.45], "7": [99.20, 99.30, 99.40]},
            "**neither confirmed nor refuted**",
        ),
        ({"5": [99.30]}, "not enough seeds"),
    ],
)
def test_verdict_weighs_a_claim_against_its_best_rival(values, found, monkeypatch):
    monkeypatch.setattr(analysis, "last_accuracies", lambda study: values)
    assert found in analysis.verdict("step_size", "5")


@pytest.mark.parametrize(
    "reference, expected",
    [("the row above", {"b": 0.1, "c": 0.005}), ("a", {"b": 0.1, "c": 0.105}), (None, {})],
)
def test_differences_are_those_from_the_reference_of_the_study(reference, expected, monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", dict.fromkeys("abcd", BASIC), reference))
    monkeypatch.setattr(
        analysis,
        "last_accuracies",
        lambda study: {"a": [99.1, 99.1], "b": [99.2, 99.2], "c": [99.1, 99.31]},
    )
    found = analysis.differences("one")  # no seed of d is recorded
    assert {label: numbers[0] for label, numbers in found.items()} == pytest.approx(expected)
    assert all(low <= 0 <= high for label, (_, low, high) in found.items() if label == "c")


def shifted(base, p_value):
    """The values of base plus the shift with this p-value in Welch's test."""
    low, high = 0.0, 2.0
    for _ in range(60):
        shift = (low + high) / 2
        above = ttest_ind([value + shift for value in base], base, equal_var=False).pvalue < p_value
        low, high = (low, shift) if above else (shift, high)
    return [value + shift for value in base]


def test_holms_correction_steps_down_through_all_planned_comparisons(monkeypatch):
    base = [99.0, 99.1, 99.2, 99.3]
    values = {
        "base": base,
        **{
            label: shifted(base, p)
            for label, p in {"a": 0.011, "b": 0.015, "c": 0.021, "d": 0.9}.items()
        },
    }
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", dict.fromkeys(values, BASIC), "base"))
    monkeypatch.setattr(analysis, "last_accuracies", lambda study: values)
    assert analysis.holm("one") == [
        "a",
        "b",
        "c",
    ]  # 4 · 0.011, 3 · 0.015 and 2 · 0.021; Bonferroni's 4 · 0.015 is above 0.05
    values["b"] = values["d"]
    assert analysis.holm("one") == ["a"]  # 3 · 0.021 is above 0.05
    del values["b"]
    assert analysis.holm("one") == ["a"]  # not recorded yet, but planned
    values.update(
        base=[99.0, 99.0], a=[99.5, 99.5], b=[99.0, 99.0], c=[99.1, 99.1]
    )  # b: no p-value
    assert analysis.holm("one") == ["a", "c"]


def test_an_interval_of_a_mean_is_students():
    values = [99.1, 99.3, 99.2, 99.6]
    half = t.ppf(0.975, 3) * stdev(values) / 2
    assert analysis._interval(values) == pytest.approx((99.3 - half, 99.3 + half))


RUNS = {
    "met": [[99.5] * 5, [99.6] * 5],
    "collapsed": [[99.5] * 5, [9.8] * 5],
    "below in one epoch": [[99.5] * 5, [99.6, 99.39, 99.6, 99.6, 99.6]],
}


@pytest.mark.parametrize("name", RUNS)
def test_the_target_of_step_3_is_met_only_if_every_seed_is_consistent(name, monkeypatch):
    records = [{"history": history(*run)} for run in RUNS[name]]
    monkeypatch.setattr(
        analysis, "study_records", lambda study: dict.fromkeys(STUDIES[study].experiments, records)
    )
    assert ("**Target met**" in analysis.analysis("augmentation")) == (name == "met")


@pytest.mark.parametrize(
    "accuracies, met, resolved",
    [
        ([99.5, 99.51], True, True),
        ([99.3, 99.52], True, False),
        ([99.3, 99.31], False, True),
        ([99.35], False, True),
    ],
)
def test_a_mean_meets_its_target_with_an_interval(accuracies, met, resolved, monkeypatch):
    records = [{"history": history(accuracy)} for accuracy in accuracies]
    monkeypatch.setattr(
        analysis, "study_records", lambda study: dict.fromkeys(STUDIES[study].experiments, records)
    )
    text = analysis.analysis("regularization")
    assert (
        ("**Target met**" in text) == met
        and ("The interval contains the target" in text) != resolved
        and "inf" not in text
    )
    monkeypatch.setattr(
        analysis, "study_records", lambda study: dict.fromkeys(STUDIES[study].experiments, [])
    )
    assert (
        analysis.analysis("regularization") == "No seed of this step is recorded with this recipe."
    )


def test_the_neighbours_are_told_apart_by_their_intervals(monkeypatch):
    step_3, better, worse, failing, *others = STUDIES["sensitivity"].experiments
    seeds = [0.0, 0.01, 0.02, 0.0, 0.01]
    runs = {
        label: [mean + seed for seed in seeds]
        for label, mean in {step_3: 99.4, better: 99.8, worse: 99.1}.items()
    }
    runs |= {failing: [99.4, 10.0], others[0]: [99.41, 99.4]}
    found = {
        label: [{"history": history(accuracy)} for accuracy in runs.get(label, [])]
        for label in STUDIES["sensitivity"].experiments
    }
    monkeypatch.setattr(analysis, "study_records", lambda study: found)
    text = analysis.sensitivity().replace("\u00a0", " ")
    assert (
        text.startswith("12 of 105 runs")
        and f"better than the recipe: {better}; worse: {worse}." in text
    )
    assert (
        f"Not every seed trains: {failing}." in text and f"*{better}* has the highest mean" in text
    )
    assert "stays as it is" not in text
    found.update({label: [{"history": history(99.4 + seed)} for seed in seeds] for label in found})
    assert analysis.sensitivity().endswith("So the recipe stays as it is.")


@pytest.mark.parametrize(
    "good, sentence",
    [
        (
            (3, 4, 5),
            "The smallest network with 10 consistent seeds has 3,948 parameters; "
            "of the next smaller one, with 2,835 parameters, 0 of 10 seeds",
        ),
        (range(6), "The smallest network with 10 consistent seeds has 1,048 parameters."),
        ((), "None of these networks"),
        (None, "Not all seeds of the network with 1,048"),
    ],
)
def test_the_smallest_consistent_network_is_named_when_all_smaller_ones_are_measured(
    good, sentence, monkeypatch
):
    labels = list(STUDIES["parameters"].experiments)
    found = {
        label: [{"history": history(*[99.5 if good and index in good else 99.3] * 5)}]
        * (10 if good is not None else 9)
        for index, label in enumerate(labels)
    }
    monkeypatch.setattr(analysis, "study_records", lambda study: found)
    assert analysis.smallest_consistent().replace("\u00a0", " ").startswith(sentence)


@pytest.mark.parametrize(
    "runs, expected",
    [
        (
            [history(98, 99.5, 99.5, 99.5, 99.5, 99.6), history(98, 99.5, 99.4, 99.5, 99.5, 99.5)],
            {
                "train": "99.00",
                "test": "99.55 ± 0.07",
                "lowest": "99.40",
                "consistent": "2 of 2",
                "note": "",
            },
        ),
        (
            [history(98, 99.5, 99.5, 99.5, 99.5, 99.5), history(98, 99.5, 99.3, 99.5, 99.5, 99.5)],
            {
                "train": "99.00",
                "test": "99.50 ± 0.00",
                "lowest": "99.30",
                "consistent": "1 of 2",
                "note": "",
            },
        ),
        (
            [history(98, 99.0), history(10, 10.0), None],
            {
                "train": "99.00",
                "test": "99.00",
                "lowest": "0.00",
                "consistent": "0 of 3",
                "note": " (1 of 3 seeds train)",
            },
        ),
        (
            [None, None],
            {
                "train": "–",
                "test": "–",
                "lowest": "0.00",
                "consistent": "0 of 2",
                "note": " (0 of 2 seeds train)",
            },
        ),
    ],
)
def test_summary_counts_the_consistent_seeds_and_those_that_train(runs, expected, one):
    one(*runs)
    assert analysis.summary(analysis.study_records("one")["a"]) == expected
    assert analysis.study_table("one").count("\n") == 2


def test_numbers_and_their_units_stay_together():
    joined = analysis.keep_numbers_together("99.5 ± 0.1 % of 3 of 4 seeds")
    assert joined == "99.5\u00a0±\u00a00.1\u00a0% of 3\u00a0of\u00a04\u00a0seeds"
