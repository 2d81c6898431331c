"""The figures show what their data say: compared with autograd, NumPy and counts by hand."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import history
from torch import nn

from src import plots
from src.models import BasicNet


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


SAME = [nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(4, 4, 5, stride=2)]


@pytest.mark.parametrize("features", [[*BasicNet().features][:8], SAME], ids=["step 1", "padding"])
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("onednn", [True, False])
def test_receptive_fields_are_those_of_autograd(features, onednn):
    layers = dict(enumerate(features))
    with torch.backends.mkldnn.flags(enabled=onednn):  # without it, some builds use NNPACK
        axes = plots.receptive_fields(layers, torch.rand(1, 28, 28)).axes
    assert all(layer.training for layer in features)  # the caller's layers stay as they are
    image, maps = torch.rand(1, 1, 28, 28, requires_grad=True), None
    for number, layer in enumerate(features):
        part = copy.deepcopy(layer[0] if isinstance(layer, nn.Sequential) else layer)
        if isinstance(part, nn.Conv2d):  # positive weights: no gradient cancels
            nn.init.ones_(part.weight)
        if isinstance(part, nn.MaxPool2d):  # a maximum passes one gradient on, a mean all
            part = nn.AvgPool2d(2)
        maps = part(image if maps is None else maps)
        middle = maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2]
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        height, width = (int(np.ptp(places)) + 1 for places in gradient[0, 0].numpy().nonzero())
        assert axes[number].get_title() == f"{number}\n{height} × {width}"


def drawn(axes):
    """The heights of the lines in a diagram."""
    return [[*line.get_ydata()] for line in axes.lines]


def test_the_curves_leave_out_the_first_epochs_below():
    run = [
        {**epoch, "learning_rate": 10.0 ** -epoch["epoch"], "test_loss": 1 / epoch["epoch"]}
        for epoch in history(90.2, 98.2, 98.9, 99.2)
    ]
    loss, accuracy, rate = plots.curves(run, "validation").axes
    assert drawn(loss) == [[0.1] * 4, [1, 1 / 2, 1 / 3, 1 / 4]]
    assert drawn(accuracy)[:2] == [[99] * 4, [90.2, 98.2, 98.9, 99.2]]
    assert accuracy.get_ylim()[0] == 98
    assert drawn(rate) == [[0.1, 0.01, 0.001, 0.0001]] and rate.get_yscale() == "log"
    assert plots.curves(history(98, 99)).axes[2].get_yscale() == "linear"
    run[3]["learning_rate"] = 0  # a logarithmic axis would leave it out
    assert plots.curves(run).axes[2].get_yscale() == "linear"


def test_a_reliability_diagram_counts_by_hand():
    confidences = torch.tensor([0.95, 0.91, 1.0, 0.55, 0.52, 0.3])
    correct = torch.tensor([True, False, True, True, False, False])
    (axes,) = plots.reliability(confidences, correct).axes
    assert axes.lines[0].get_ydata() == pytest.approx([30, 53.5, 286 / 3])
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0, 50, 200 / 3])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["30–40\n1", "50–60\n2", "90–100\n3"]


def test_feature_maps_are_scaled_one_by_one():
    first, second = torch.randn(1, 3, 5, 5), torch.randn(1, 20, 4, 4)
    one, wide = plots.feature_maps({"a": first, "b": second}).axes
    assert one.get_title("left") == "a: 3 × 5 × 5" and wide.get_title("left") == "b: 20 × 4 × 4"
    for axes, row, column, channel in [(one, 1, 7, first[0, 1]), (wide, 6, 6, second[0, 17])]:
        height, width = channel.shape
        tile = axes.images[0].get_array()[row : row + height, column : column + width]
        expected = (channel - channel.min()) / (channel.max() - channel.min())
        assert np.abs(tile - expected.numpy()).max() < 1e-3


def test_filters_are_drawn_above_their_maps():
    weights, maps = torch.rand(4, 1, 3, 3), torch.rand(4, 26, 26)
    images = [axes.images[0].get_array() for axes in plots.filters(weights, maps).axes[:8]]
    assert np.array_equal(images[3], weights[3, 0]) and np.array_equal(images[7], maps[3])


def test_a_confusion_matrix_counts_by_hand():
    axes = plots.confusion(torch.tensor([7, 7, 7, 2]), torch.tensor([7, 1, 1, 2])).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(7, 7): "1", (1, 7): "2", (2, 2): "1"}
    assert axes.images[0].get_array()[7, 7] == 0


def test_a_convolution_shows_the_sums_of_two_positions():
    image, weights = torch.zeros(1, 28, 28), torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, -0.5]])
    image[0, 5, 7] = image[0, 15, 20] = 1
    figure = plots.convolution(image, weights, [(5, 7), (13, 18)])
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert panels["products 0"].get_xlabel() == "sum 1.00"
    assert panels["products 1"].get_xlabel() == "sum −0.50; ReLU: 0"
    for number, expected in enumerate((["1.00"] + ["0.00"] * 8, ["0.00"] * 8 + ["−0.50"])):
        texts = panels[f"products {number}"].texts
        assert [text.get_text() for text in texts] == expected
    shown = panels["map"].images[0].get_array()
    assert shown.shape == (26, 26) and shown[5, 7] == 1 and shown[13, 18] == 0
    corners = [patch.get_xy() for patch in panels["image"].patches]
    assert corners == [(6.5, 4.5), (17.5, 12.5)]


def test_a_figure_is_displayed_once_with_its_description(monkeypatch):
    displayed = []
    monkeypatch.setattr(
        "IPython.display.display", lambda shown, **options: displayed.append((shown, options))
    )
    figure = plots.digits(torch.zeros(1, 1, 28, 28))
    for label, expected in ((None, {}), ("0123", {"label": "0123"})):
        displayed.clear()
        figure.set_label(label)
        plots.show(figure, "Nothing.")
        (picture, options), (caption, _) = displayed
        assert picture is figure and caption.data == "*Nothing.*"
        assert options["metadata"] == {"image/png": {"alt": "Nothing.", **expected}}
    assert plt.get_fignums() == []  # an open figure is displayed once more
