"""The pictures of the studies show every seed, and the numbers of the rows."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import history

from src import plots
from src.data import SPLITS
from src.evidence import pictures
from src.evidence.rows import Row
from src.evidence.studies import STUDIES
from src.evidence.study import Study
from src.experiments import BASIC, STEPS
from src.models import count_parameters
from src.recipes import build_model


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def drawn(axes):
    """The heights of the lines in a diagram."""
    return [[*line.get_ydata()] for line in axes.lines]


def row(label, lowest, difference=None, last=None, histories=None):
    runs = histories or [history(99.0) for _ in lowest]
    return Row(label, [{} for _ in runs], runs, lowest, last or lowest, 0, difference)


def test_a_study_shows_every_seed_and_the_interval_of_each_difference(monkeypatch):
    recipes = dict.fromkeys("abc", BASIC)
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", recipes, "c"))
    rows = {
        "a": row("a", [99.1, 99.2, 99.1], (0.1, -np.inf, np.inf)),
        "b": row("b", [99.3, 99.3], (0.17, 0.1, 0.24)),
        "c": Row("c", [{}, {}], [history(99.0)], [99.0], [99.0], 0),  # a seed does not train
    }
    left, right = pictures.study("one", rows).axes
    dots = [collection.get_offsets().tolist() for collection in left.collections]
    accuracies = [[accuracy for accuracy, _ in seeds] for seeds in dots]
    assert accuracies == [rows["a"].lowest, rows["b"].lowest]
    assert all(len({*map(tuple, seeds)}) == len(seeds) for seeds in dots)  # none hides another
    marks = [line.get_markerfacecolor() for line in right.lines if line.get_marker() == "s"]
    assert marks == ["none", plots.BLUE]  # open without an interval
    intervals = [bar.get_segments()[0].tolist() for bar in right.collections]
    assert intervals[1] == [[0.1, 1], [0.24, 1]]


def test_steps_of_different_lengths_are_drawn():
    lengths = {"basic": 3, "regularization": 12, "augmentation": 15}
    rows = {
        step: {step: row(step, [99.5], histories=[history(*[99.5] * length)])}
        for step, length in lengths.items()
    }
    whole, _ = pictures.steps(rows).axes
    assert [len(line.get_xdata()) for line in whole.lines[:3]] == [*lengths.values()]


def test_the_range_of_the_steps_covers_every_seed():
    seeds = [history(*[accuracy] * 15) for accuracy in (99.2, 99.5, 99.3)]
    rows = {step: {step: row(step, [99.2] * 3, histories=seeds)} for step in STEPS}
    for axes in pictures.steps(rows).axes:
        for band in axes.collections:
            heights = band.get_paths()[0].vertices[:, 1]
            assert (heights.min(), heights.max()) == (99.2, 99.5)
        assert len(axes.collections) == len(STEPS)


def test_seeds_that_do_not_learn_count_in_the_share_of_consistent_seeds():
    half = Row("a", [{}, {}], [history(99.5)], [99.5], [99.5], 1)  # one of two seeds learns
    rows = {"original": {"regularization": half, "augmentation": half}}
    rows |= {step: {step: half} for step in ("regularization", "augmentation")}
    curve = pictures.consistency(rows).axes[0].lines[0]
    shares = dict(zip(curve.get_xdata().tolist(), curve.get_ydata().tolist()))
    assert shares[99.5] == 50


def test_a_study_leaves_out_a_recipe_that_would_squeeze_the_others(monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", dict.fromkeys("abc", BASIC)))
    rows = {"a": row("a", [99.1, 99.2]), "b": row("b", [94.9, 99.3]), "c": row("c", [95.1, 99.3])}
    (axes,) = pictures.study("one", rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c"]


def test_a_study_names_the_images_that_it_evaluates(monkeypatch):
    rows = {"a": row("a", [99.1, 99.2]), "b": row("b", [99.3, 99.3])}
    monkeypatch.setitem(SPLITS, "validation, fewer images", SPLITS["validation"])
    for splits, name in (
        (("validation", "validation"), "validation"),
        (("validation, fewer images", "validation"), "validation"),
        (("fold 2", "fold 2"), "fold 2"),
        (("fold 1", "fold 2"), "each row's images"),
        (("test", "test, 50,000 images"), "test"),
    ):
        recipes = {label: replace(BASIC, split=split) for label, split in zip("ab", splits)}
        monkeypatch.setitem(STUDIES, "one", Study("?", "x", recipes))
        (axes,) = pictures.study("one", rows).axes
        assert axes.get_xlabel().endswith(f"\n{name} (%)")


def test_the_steps_over_their_seeds():
    runs = [[history(97, 98, 98.5), history(97, 99, 98.7)], *2 * [2 * [history(99, 99.3, 99.5)]]]
    rows = {
        step: {step: row(step, [], histories=histories)}
        for step, histories in zip(STEPS, runs, strict=True)
    }
    whole, end = pictures.steps(rows).axes
    assert drawn(whole)[:2] == [[97, 98.5, 98.6], [99, 99.3, 99.5]]
    assert "step 1 is below" in end.get_title() and "step 2" not in end.get_title()
    names = [text.get_text() for text in whole.figure.legends[0].get_texts()]
    assert names[:2] == ["step 1: 98.60 % (2 seeds)", "step 2: 99.50 % (2 seeds)"]


def test_the_curve_of_consistency_counts_the_seeds_at_or_above_each_accuracy():
    originals = {step: row(step, [99.1]) for step in STEPS}
    step_2 = replace(row("regularization", [99.5, 99.3, 99.4, 99.4]), consistent=3)
    rows = {
        "regularization": {"regularization": step_2},
        "augmentation": {"augmentation": row("augmentation", [])},  # no run is recorded yet
        "original": originals,
    }
    (axes,) = pictures.consistency(rows).axes
    curve = axes.lines[0]
    assert curve.get_label() == "step 2 (4 seeds)" and curve.get_drawstyle() == "steps-pre"
    for accuracy, share in ((99.2, 100), (99.3, 100), (99.35, 75), (99.4, 75), (99.45, 25)):
        index = np.searchsorted(curve.get_xdata(), accuracy)  # the step that ends there
        assert curve.get_ydata()[index] == share
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[[99.4, 75]], [[99.4, 0]], [[99.4, 0]]]
    assert len(axes.lines) == 7  # with that of the target


def test_what_a_parameter_is_worth_is_drawn_at_its_number():
    few, *_, some, many = STUDIES["parameters"].experiments  # labels
    rows = {
        "parameters": {
            few: row(few, [97.0], last=[98.0, 98.2]),
            many: row(many, [99.4], last=[99.5]),
            some: Row(some, [], [], [], [], 0),  # no run is recorded yet
        }
    }
    claims = [{"parameters": 3_762, "last": 99.52, "best": 99.53}]
    (axes,) = pictures.parameters(rows, claims).axes
    points = {tuple(point) for line in axes.lines for point in line.get_xydata().tolist()}
    least, most = (int(label.replace(",", "")) for label in (few, many))
    expected = {(least, 98.0), (least, 98.2), (least, 98.1), (most, 99.5), (3762, 99.52)}
    assert expected <= points and [text.get_text() for text in axes.texts] == ["1", "99.4 %"]


def test_what_an_epoch_is_worth_is_drawn_at_its_number():
    rows = {"epochs": {"5": row("5", [98.8, 98.9]), "15": row("15", [99.4, 99.5])}}
    (axes,) = pictures.epochs(rows).axes
    points = {tuple(point) for line in axes.lines for point in line.get_xydata().tolist()}
    assert {(5, 98.8), (5, 98.9), (5, 98.85), (15, 99.4), (15, 99.5), (15, 99.45)} <= points


@pytest.mark.parametrize(
    "second, numbers",
    [
        ((4_000, 99.52), ["2"]),  # it would lie under the number of the first
        ((3_800, 99.50), ["1"]),  # its number would lie on that of the first
        ((4_000, 99.40), ["1", "2"]),
        ((3_000, 99.52), ["1", "2"]),
    ],
)
def test_numbers_hide_neither_points_nor_numbers(second, numbers):
    claims = [
        {"parameters": parameters, "last": last, "best": last}
        for parameters, last in ((3_762, 99.5), second)
    ]
    (axes,) = pictures.parameters({"parameters": {}}, claims).axes
    assert [text.get_text() for text in axes.texts[:-1]] == numbers


@pytest.mark.parametrize("accuracy, numbers", [(99.12, []), (99.02, ["1"])])
def test_a_number_does_not_hide_a_seed_of_ours(accuracy, numbers):
    label, recipe = next(iter(STUDIES["parameters"].experiments.items()))
    parameters = 0.92 * count_parameters(build_model(recipe))
    claims = [{"parameters": parameters, "last": 99.1, "best": 99.1}]
    (axes,) = pictures.parameters({"parameters": {label: row(label, [accuracy])}}, claims).axes
    assert [text.get_text() for text in axes.texts[:-1]] == numbers


def test_the_images_that_all_seeds_misclassify_have_their_digits_and_predictions(mnist):
    runs = [[[0, 3], [2, 7], [5, 1]], [[2, 7], [5, 1], [9, 4]]]
    records = [{"recipe": {"split": "test"}, "errors": errors} for errors in runs]
    shown = [axes for axes in pictures.shared_errors(records).axes if axes.images]
    labels = mnist[1][1]
    titles = [axes.get_title() for axes in shown]
    assert titles == [f"{labels[2]} → 7", f"{labels[5]} → 1"]
    for axes, index in zip(shown, (2, 5)):
        assert np.array_equal(axes.images[0].get_array(), mnist[1][0][index, 0].numpy())
