"""The figures show what their data say: compared with autograd, NumPy and counts by hand."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from src import plots
from src.evidence import figures
from src.models import MODELS, AugmentedNet


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def field_by_autograd(layers, image):
    """Height and width of the part of the image that has a gradient from the middle output."""
    image = image.clone().requires_grad_()
    out = nn.Sequential(*layers)(image[None])
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    rows, columns = image.grad[0].nonzero(as_tuple=True)
    return [int(places.max() - places.min()) + 1 for places in (rows, columns)]


SAME = {"same": nn.Conv2d(1, 4, 3, padding="same"), "stride": nn.Conv2d(4, 4, 5, stride=2)}


@pytest.mark.parametrize("name", [*MODELS, "padding"])
def test_receptive_fields_are_those_of_autograd(name):
    features = [*MODELS[name]().features][:8] if name in MODELS else SAME.values()
    layers = {str(number): layer for number, layer in enumerate(features)}
    figure = plots.receptive_fields(layers, torch.rand(1, 28, 28))
    parts = [
        part
        for layer in layers.values()
        for part in ([layer] if not isinstance(layer, nn.Sequential) else [layer[0]])
    ]
    parts = [copy.deepcopy(part) for part in parts]
    for part in parts:  # positive weights: no gradient cancels
        if isinstance(part, nn.Conv2d):
            nn.init.ones_(part.weight)
    # A maximum passes one gradient on, a mean all.
    parts = [nn.AvgPool2d(2) if isinstance(part, nn.MaxPool2d) else part for part in parts]
    for count, axes in enumerate(figure.axes, 1):
        height, width = field_by_autograd(parts[:count], torch.rand(1, 28, 28))
        assert axes.get_title() == f"{count - 1}\n{height} × {width}"


def test_the_curves_say_where_their_axes_are_cut_off():
    history = [
        {
            "epoch": epoch,
            "learning_rate": 10.0**-epoch,
            "train_loss": 1 / epoch,
            "test_loss": 2 / epoch,
            "train_accuracy": accuracy,
            "test_accuracy": accuracy + 0.2,
        }
        for epoch, accuracy in enumerate([90, 98, 98.7, 99], 1)
    ]
    loss, accuracy, rate = plots.curves(history, "validation").axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [
        [1, 1 / 2, 1 / 3, 1 / 4],
        [2, 1, 2 / 3, 1 / 2],
    ]
    assert [line.get_ydata().tolist() for line in accuracy.lines[:2]] == [
        [90, 98, 98.7, 99],
        [90.2, 98.2, 98.9, 99.2],
    ]
    assert accuracy.get_ylabel() == "%, above 98 %" and accuracy.get_ylim()[0] == 98
    assert (
        rate.lines[0].get_ydata().tolist() == [0.1, 0.01, 0.001, 0.0001]
        and rate.get_yscale() == "log"
    )
    assert (
        plots.curves([{**epoch, "learning_rate": 0.1} for epoch in history]).axes[2].get_yscale()
        == "linear"
    )


def test_a_reliability_diagram_counts_by_hand():
    confidences = torch.tensor([0.95, 0.91, 1.0, 0.55, 0.52, 0.3])
    correct = torch.tensor([True, False, True, True, False, False])
    (axes,) = plots.reliability(confidences, correct).axes
    assert axes.lines[0].get_ydata() == pytest.approx([30, 53.5, 286 / 3])
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0, 50, 200 / 3])
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "30–40\n1",
        "50–60\n2",
        "90–100\n3",
    ]


def test_feature_maps_are_scaled_one_by_one():
    first, second = torch.randn(1, 3, 5, 5), torch.randn(1, 20, 4, 4)
    one, wide = plots.feature_maps({"a": first, "b": second}).axes
    assert one.get_title("left") == "a: 3 × 5 × 5" and wide.get_title("left") == "b: 20 × 4 × 4"
    for axes, row, column, channel in [(one, 1, 7, first[0, 1]), (wide, 6, 6, second[0, 17])]:
        tile = axes.images[0].get_array()[
            row : row + channel.shape[0], column : column + channel.shape[1]
        ]
        expected = (channel - channel.min()) / (channel.max() - channel.min())
        assert np.abs(tile - expected.numpy()).max() < 1e-3


def test_filters_are_drawn_above_their_maps():
    model = AugmentedNet().eval()
    weights, maps = model.features[0][0].weight, model.features[0](torch.rand(1, 1, 28, 28))[0]
    axes = plots.filters(weights, maps).axes
    assert np.array_equal(axes[3].images[0].get_array(), weights[3, 0].detach())
    assert np.array_equal(axes[12 + 3].images[0].get_array(), maps[3].detach())


def test_a_confusion_matrix_counts_by_hand():
    axes = plots.confusion(torch.tensor([7, 7, 7, 2]), torch.tensor([7, 1, 1, 2])).axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((7, 7), "1"),
        ((1, 7), "2"),
        ((2, 2), "1"),
    }
    assert axes.images[0].get_array()[7, 7] == 0


def test_a_study_shows_every_seed_and_the_interval_of_each_difference():
    accuracies = {"a": [99.1, 99.2, 99.1], "b": [99.3, 99.3]}
    left, right = figures.study(
        accuracies, {"b": (0.17, 0.1, 0.24)}, "validation accuracy (%)", "a"
    ).axes
    dots = [collection.get_offsets().tolist() for collection in left.collections]
    assert [[accuracy for accuracy, _ in row] for row in dots] == list(accuracies.values())
    assert all(len({*map(tuple, row)}) == len(row) for row in dots)  # none hides another
    (interval,) = right.collections
    assert right.lines[0].get_markerfacecolor() != "none"
    one_seed = {"a": (0.1, -np.inf, np.inf)}
    assert (
        figures.study({"a": [99.1]}, one_seed, "accuracy", "b")
        .axes[1]
        .lines[0]
        .get_markerfacecolor()
        == "none"
    )
    assert [point.tolist() for point in interval.get_segments()[0]] == [[0.1, 1], [0.24, 1]]


def test_the_steps_over_their_seeds():
    runs = {"one": [[97, 98, 98.5], [97, 99, 98.7]], "two": [[99, 99.3, 99.5]] * 2}
    whole, end = figures.steps(runs).axes
    assert [line.get_ydata().tolist() for line in whole.lines[:2]] == [
        [97, 98.5, 98.6],
        [99, 99.3, 99.5],
    ]
    assert "; one is below" in end.get_title() and "two" not in end.get_title()
    names = [text.get_text() for text in whole.figure.legends[0].get_texts()]
    assert names == ["one: 98.60 % (2 seeds)", "two: 99.50 % (2 seeds)"]


def test_what_a_parameter_is_worth_is_drawn_at_its_number():
    accuracies = {"1,048": [98.0, 98.2], "7,946": [99.5]}
    (axes,) = figures.worth(accuracies, "parameters", "test accuracy (%)", [(3_762, 99.52)]).axes
    points = {tuple(point) for line in axes.lines for point in line.get_xydata().tolist()}
    expected = {(1048, 98.0), (1048, 98.2), (1048, 98.1), (7946, 99.5), (3762, 99.52)}
    assert expected <= points and [text.get_text() for text in axes.texts] == ["1", "99.4 %"]
    figures.worth({"5": [99.0]}, "epochs", "validation accuracy (%)")
