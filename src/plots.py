"""Figures of images, networks and runs, from tensors and histories.

Most functions return a new figure; none reads a file or knows an experiment.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import nn
from torchvision.utils import make_grid

BLUE, RED, GREY = "#4477aa", "#cc3311", "#777777"  # colour-blind safe (Paul Tol)
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "savefig.dpi": 150,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.8,
    }
)


def digits(
    images: Sequence[torch.Tensor] | torch.Tensor,
    titles: Sequence[object] = (),
    columns: int = 12,
    rows: Sequence[str] = (),
    limits: tuple[float, float] = (0, 1),
) -> Figure:
    """A grid of images, each of shape (1, 28, 28) or (28, 28), dark on white, under its title.

    A title has one or two lines. `rows` are names of the rows. `limits` are the values of white and
    of black; unless they are 0 and 1, a colour bar shows them.
    """
    row_count = max(1, math.ceil(len(images) / columns))
    lines = max((str(title).count("\n") + 1 for title in titles), default=0)
    size = (0.72 * columns + 2 * bool(rows), (0.72 + 0.18 * lines) * row_count)
    figure, grid = plt.subplots(row_count, columns, figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, images):
        drawn = axes.imshow(
            image.squeeze().cpu().numpy(), cmap="gray_r", vmin=limits[0], vmax=limits[1]
        )
    for axes, title in zip(grid.flat, titles):
        axes.set_title(title, fontsize=9, pad=3)
    style = {"xycoords": "axes fraction", "ha": "right", "va": "center", "fontsize": 10}
    for axes, name in zip(grid[:, 0], rows):
        axes.annotate(name, (-0.1, 0.5), **style)
    if limits != (0, 1) and len(images):
        figure.colorbar(drawn, ax=grid, aspect=8, label="pixel value")
    return figure


def show(figure: Figure, caption: str) -> None:
    """Display a figure in a notebook, with a sentence under it for those who do not see it.

    The figure's label, if it has one, is stored beside it: `evidence.report` compares it.
    """
    from IPython.display import Markdown, display  # only a notebook needs it

    metadata = {"alt": caption}
    if figure.get_label():
        metadata["label"] = figure.get_label()
    display(figure, metadata={"image/png": metadata})
    display(Markdown(f"*{caption}*"))
    plt.close(figure)  # or Jupyter displays it once more


@torch.no_grad()
def convolution(
    image: torch.Tensor, weights: torch.Tensor, positions: Sequence[tuple[int, int]]
) -> Figure:
    """One filter by hand: pixels times weights at two positions, and their sums in the map.

    `image` has shape (1, 28, 28), `weights` (3, 3); a position is the row and the column of the
    filter's upper left corner. The map is drawn after ReLU.
    """
    sums = F.conv2d(image[None], weights[None, None])[0, 0].cpu()
    rows = [["image", f"pixels {i}", f"weights {i}", f"products {i}", "map"] for i in range(2)]
    figure, panels = plt.subplot_mosaic(rows, figsize=(9.6, 3.8), width_ratios=[2, 1, 1, 1, 2])
    panels["image"].imshow(image[0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
    panels["image"].set_title("image")
    panels["map"].imshow(sums.clamp(min=0).numpy(), cmap="gray_r")
    panels["map"].set_title("map, after ReLU")
    limit = float(weights.abs().max())
    for number, ((row, column), colour) in enumerate(zip(positions, (RED, BLUE), strict=True)):
        pixels = image[0, row : row + 3, column : column + 3]
        total = float(sums[row, column])
        _draw_numbers(panels[f"pixels {number}"], pixels, "gray_r", (0, 1))
        _draw_numbers(panels[f"weights {number}"], weights, "RdBu_r", (-limit, limit))
        _draw_numbers(panels[f"products {number}"], pixels * weights, "RdBu_r", (-limit, limit))
        result = f"sum {_format_number(total)}" + ("; ReLU: 0" if total < 0 else "")
        panels[f"products {number}"].set_xlabel(result, color=colour)
        _draw_box(panels["image"], (row, column), 3, colour)
        _draw_box(panels["map"], (row, column), 1, colour)
        panels[f"pixels {number}"].spines[:].set(color=colour, linewidth=2)
    for name, title in (("pixels", "pixels"), ("weights", "× weights"), ("products", "= products")):
        panels[f"{name} 0"].set_title(title)
    for axes in panels.values():
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
    return figure


def _draw_numbers(axes: Axes, values: torch.Tensor, cmap: str, limits: tuple[float, float]) -> None:
    """A small matrix as colours, with its numbers."""
    low, high = limits
    axes.imshow(values.cpu().numpy(), cmap=cmap, vmin=low, vmax=high)
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            dark = abs(value) > 0.6 * high
            style = {"color": "white" if dark else "black", "fontsize": 8}
            axes.text(column, row, _format_number(value), ha="center", va="center", **style)


def _format_number(value: float) -> str:
    """Two decimals; a value that rounds to zero has no sign."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def _draw_box(axes: Axes, corner: tuple[int, int], size: int, colour: str) -> None:
    """A frame around `size` × `size` pixels, from the one in this row and column."""
    row, column = corner
    box = (column - 0.5, row - 0.5), size, size
    axes.add_patch(plt.Rectangle(*box, fill=False, edgecolor=colour, linewidth=2))


@torch.no_grad()
def receptive_fields(layers: Mapping[str, nn.Module], image: torch.Tensor) -> Figure:
    """What one output of each layer sees of an image of shape (1, 28, 28).

    The output is the one in the middle of its map. `layers` are applied one after the other, to 784
    images that have NaN in one pixel each: the output is NaN if it depends on that pixel.
    """
    # In float64: in float32, some libraries (NNPACK) compute several outputs from one tile, and
    # spread NaN over it.
    maps = torch.zeros(784, 784, dtype=torch.float64).fill_diagonal_(torch.nan)
    maps = maps.view(784, 1, 28, 28)
    figure, row = plt.subplots(1, len(layers), figsize=(1.2 * len(layers), 1.8), squeeze=False)
    for axes, (name, layer) in zip(row.flat, layers.items()):
        maps = copy.deepcopy(layer).cpu().double().eval()(maps)
        seen = maps[:, 0, maps.shape[2] // 2, maps.shape[3] // 2].isnan().view(28, 28)
        height, width = (int(seen.any(dim).sum()) for dim in (1, 0))
        axes.imshow(image[0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.imshow(seen.numpy(), cmap="Reds", vmin=0, vmax=1.5, alpha=0.4 * seen.numpy())
        axes.set_title(f"{name}\n{height} × {width}", fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
    return figure


def filters(weights: torch.Tensor, maps: torch.Tensor) -> Figure:
    """The filters of the first convolution, (C, 1, H, W), each above its map, (C, H, W)."""
    figure, grid = plt.subplots(2, len(weights), figsize=(0.8 * len(weights) + 0.8, 2))
    weights, maps = weights.detach().cpu().numpy(), maps.detach().cpu().numpy()
    limit = abs(weights).max()
    for axes, weight, feature_map in zip(grid.T, weights, maps, strict=True):
        drawn = axes[0].imshow(weight[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes[1].imshow(feature_map, cmap="gray_r")
    for axes in grid.flat:
        axes.set_axis_off()
    figure.colorbar(drawn, ax=grid, label="weight", shrink=0.5, anchor=(0, 1))
    return figure


def feature_maps(layers: Mapping[str, torch.Tensor]) -> Figure:
    """The feature maps of an image: the outputs of named layers, each of shape (1, C, H, W).

    Each map has its own scale, from its lowest value, white, to its highest, black.
    """
    lines = [math.ceil(maps.shape[1] / 16) for maps in layers.values()]
    size = (8.2, 0.5 * sum(lines) + 0.35 * len(lines))
    figure, column = plt.subplots(len(lines), figsize=size, height_ratios=lines, squeeze=False)
    for axes, (name, maps) in zip(column.flat, layers.items(), strict=True):
        channels = maps.detach().cpu().transpose(0, 1)  # as images
        options = {"normalize": True, "scale_each": True, "pad_value": 0.2}
        tiles = make_grid(channels, 16, padding=1, **options)
        axes.imshow(tiles[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        label = f"{name}: {' × '.join(map(str, maps.shape[1:]))}"
        axes.set_title(label, fontsize=9, loc="left", pad=2)
        axes.set_axis_off()
        axes.set_anchor("NW")
    return figure


def curves(history: Sequence[Mapping], split: str = "test", target: float = 99.4) -> Figure:
    """Loss and accuracy of a run per epoch, in training and on `split`; below, the learning rate.

    `target` is an accuracy in %, which a line marks.
    """
    epochs = [epoch["epoch"] for epoch in history]
    figure, panels = plt.subplot_mosaic(
        [["loss", "accuracy"], ["rate", "rate"]], figsize=(8.6, 4.8), height_ratios=[4, 1]
    )
    loss, accuracy, rate = panels.values()
    for part, label, colour in (("train", "training", BLUE), ("test", split, RED)):
        for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
            values = [epoch[f"{part}_{measure}"] for epoch in history]
            axes.plot(epochs, values, "o-", ms=4, color=colour, label=label)
    loss.set(title="Loss", ylabel="mean negative log-likelihood", yscale="log")
    ticks = {"major_locator": LogLocator(subs=(1, 2, 5)), "major_formatter": "{x:g}"}
    loss.yaxis.set(minor_locator=NullLocator(), **ticks)
    shown = history[2:] or history  # the first two epochs may be below
    low = min(min(epoch["train_accuracy"], epoch["test_accuracy"]) for epoch in shown)
    bottom = max(0, math.floor(low))
    accuracy.set(title="Accuracy", ylabel="%", ylim=(bottom, 100.05))
    mark_target(accuracy, target)
    loss.legend(fontsize=9)
    rates = [epoch["learning_rate"] for epoch in history]
    rate.plot(epochs, rates, "o", color=GREY, ms=4)
    logarithmic = 0 < min(rates) < 0.02 * max(rates)
    if logarithmic:
        rate.set(yscale="log")
    else:
        rate.set(ylim=(0, 1.2 * max(rates)))
    rate.set_title("Learning rate at the start of each epoch")
    for axes in panels.values():
        axes.set(xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def mark_target(axes: Axes, target: float) -> None:
    """Draw a line at an accuracy in %."""
    axes.axhline(target, color=GREY, ls="--", lw=1.2)
    style = {"color": GREY, "fontsize": 9, "va": "center"}
    axes.text(1.005, target, f"{target} %", transform=axes.get_yaxis_transform(), **style)


def confusion(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often each digit (row) was classified as each digit (column).

    The colours leave out the correct predictions. Both tensors are int64 of shape (N,).
    """
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.4, 4.8))
    image = axes.imshow(wrong.numpy(), cmap="Reds")
    for row, column in counts.nonzero().tolist():
        text_colour = "white" if wrong[row, column] > wrong.max() / 2 else "black"
        style = {"color": GREY if row == column else text_colour, "fontsize": 9}
        axes.text(column, row, int(counts[row, column]), ha="center", va="center", **style)
    axes.set(xticks=range(10), yticks=range(10), xlabel="prediction", ylabel="label")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="misclassified images", shrink=0.85)
    return figure


def reliability(confidences: torch.Tensor, correct: torch.Tensor) -> Figure:
    """Accuracy over confidence, in bins of 10 %, with mean confidence and number of images.

    `confidences` are the probabilities of the predicted digits, `correct` whether these are right;
    both of shape (N,). A network is calibrated if every bar ends at its mark
    (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    confidences, correct = confidences.cpu().double(), correct.cpu().double()
    bins = (confidences * 10).long().clamp(max=9)  # a confidence of 1 belongs to the last bin
    counts = torch.bincount(bins, minlength=10)
    hits = torch.bincount(bins, correct, minlength=10)
    sums = torch.bincount(bins, confidences, minlength=10)
    used = counts.nonzero().flatten()
    centres = (10 * used + 5).tolist()
    figure, axes = plt.subplots(figsize=(7.2, 4))
    axes.bar(centres, (100 * hits / counts)[used].tolist(), 9, color=BLUE, label="accuracy")
    mean = (100 * sums / counts)[used].tolist()
    axes.plot(centres, mean, "_", color=RED, ms=34, mew=2.5, label="mean confidence")
    labels = [f"{10 * bin}–{10 * bin + 10}\n{counts[bin]:,}" for bin in used.tolist()]
    axes.set_xticks(centres, labels, fontsize=9)
    axes.set(xlabel="confidence (%), and below it the number of images", ylabel="%", ylim=(0, 101))
    figure.legend(loc="outside upper center", ncols=2)
    return figure
