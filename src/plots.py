"""Figures of images, networks and runs. Every function returns a new figure; none reads files or runs experiments."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import nn
from torchvision.utils import make_grid

TARGET = 99.4  # % test accuracy
BLUE, RED, GREY = "#4477aa", "#cc3311", "#777777"  # colour-blind safe (Paul Tol)
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "savefig.dpi": 150,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
    }
)


def digits(
    images: torch.Tensor,
    titles: Sequence[object] = (),
    columns: int = 12,
    rows: Sequence[str] = (),
    limits: tuple[float, float] = (0, 1),
) -> Figure:
    """A grid of images of shape (N, 1, 28, 28), dark on white, each under its title of one or two lines.

    `rows` are names of the rows. `limits` are the values of white and of black; unless they are 0 and 1, a colour bar shows them.
    """
    height, lines = (
        max(1, -(-len(images) // columns)),
        max((str(title).count("\n") + 1 for title in titles), default=0),
    )
    figure, grid = plt.subplots(
        height,
        columns,
        figsize=(0.72 * columns + 2 * bool(rows), (0.72 + 0.18 * lines) * height),
        squeeze=False,
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, images):
        drawn = axes.imshow(
            image.squeeze().cpu().numpy(), cmap="gray_r", vmin=limits[0], vmax=limits[1]
        )
    for axes, title in zip(grid.flat, titles):
        axes.set_title(title, fontsize=9, pad=3)
    for axes, name in zip(grid[:, 0], rows):
        axes.annotate(
            name, (-0.1, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=10
        )
    if limits != (0, 1):
        figure.colorbar(drawn, ax=grid, aspect=8, label="pixel value")
    return figure


def receptive_field(model: nn.Module, image: torch.Tensor) -> Figure:
    """What one output of each layer sees of an image of shape (1, 28, 28), for a sequence of convolutions and pooling layers.

    The output is the one in the middle of its map.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d))
    ]
    layers = layers[
        : 1
        + next(
            (i for i, layer in enumerate(layers) if isinstance(layer, nn.AdaptiveAvgPool2d)),
            len(layers),
        )
    ]
    figure, row = plt.subplots(1, len(layers), figsize=(1.2 * len(layers), 1.8), squeeze=False)
    field, step, start, size = (
        1,
        1,
        0,
        image.shape[-1],
    )  # in pixels: field, distance between fields, first field's start; map size
    for axes, layer in zip(row.flat, layers):
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            field, start, step, name = image.shape[-1], 0, 0, "average"
        else:
            kernel, stride, padding = (
                value if isinstance(value, int) else value[0]
                for value in (layer.kernel_size, layer.stride, layer.padding)
            )
            name = f"{'conv' if isinstance(layer, nn.Conv2d) else 'max pool'} {kernel} × {kernel}"
            field, start, step = field + (kernel - 1) * step, start - padding * step, step * stride
            size = (size + 2 * padding - kernel) // stride + 1
        corner = start + size // 2 * step - 0.5  # pixels are centred at integers
        axes.imshow(image.squeeze().cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.add_patch(
            plt.Rectangle(
                (corner, corner), field, field, facecolor=RED, edgecolor=RED, alpha=0.35, lw=1.5
            )
        )
        axes.set_title(f"{name}\n{field} × {field}", fontsize=9)
        axes.set(
            xticks=[],
            yticks=[],
            xlim=(-0.5, image.shape[-1] - 0.5),
            ylim=(image.shape[-1] - 0.5, -0.5),
        )
        axes.spines[:].set_visible(True)
    return figure


def filters(weights: torch.Tensor, maps: torch.Tensor) -> Figure:
    """The filters of the first convolution, of shape (C, 1, H, W), and below each the map that it makes of an image: (C, H, W)."""
    figure, grid = plt.subplots(2, len(weights), figsize=(0.8 * len(weights) + 0.8, 2))
    for axes, weight, made in zip(
        grid.T, weights.detach().cpu().numpy(), maps.detach().cpu().numpy()
    ):
        drawn = axes[0].imshow(
            weight[0],
            cmap="RdBu_r",
            vmin=-weights.abs().max().item(),
            vmax=weights.abs().max().item(),
        )
        axes[1].imshow(made, cmap="gray_r")
    for axes in grid.flat:
        axes.set_axis_off()
    figure.colorbar(drawn, ax=grid, label="weight", shrink=0.5, anchor=(0, 1))
    return figure


def feature_maps(*networks: Mapping[str, torch.Tensor], titles: Sequence[str] = ()) -> Figure:
    """The feature maps of an image, from the first layer to the last, for each network in a column of its own.

    Each network is given by the names of its layers and their outputs, of shape (1, C, H, W). Each map has its own scale, from its
    lowest value, white, to its highest, black.
    """
    columns = 16 // len(networks)  # maps beside each other
    lines = [
        max(-(-maps.shape[1] // columns) for maps in row if maps is not None)
        for row in zip_longest(*(network.values() for network in networks))
    ]
    figure, grid = plt.subplots(
        len(lines),
        len(networks),
        figsize=(8.2, 0.5 * sum(lines) + 0.35 * len(lines)),
        height_ratios=lines,
        squeeze=False,
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for column, network in zip(grid.T, networks):
        for axes, (name, maps) in zip(column, network.items()):
            channels = maps.detach().cpu().transpose(0, 1)  # as images
            tiles = make_grid(
                channels, columns, padding=1, normalize=True, scale_each=True, pad_value=0.2
            )
            axes.imshow(tiles[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(
                f"{name}: {' × '.join(map(str, maps.shape[1:]))}", fontsize=9, loc="left", pad=2
            )
            axes.set_anchor("NW")
    for column, title in zip(grid.T, titles):
        column[0].set_title(
            f"{title}\n{column[0].get_title('left')}", fontsize=9, loc="left", pad=2
        )
    return figure


def histograms(values: Mapping[str, Mapping[str, torch.Tensor]]) -> Figure:
    """How the values of several tensors are distributed: a panel for each group, a line for each of its tensors."""
    figure, row = plt.subplots(1, len(values), figsize=(9.6, 2.8), sharey=True, squeeze=False)
    for axes, (group, tensors) in zip(row.flat, values.items()):
        low, high = (
            min(t.min().item() for t in tensors.values()),
            max(t.max().item() for t in tensors.values()),
        )
        for (label, tensor), colour in zip(tensors.items(), (GREY, BLUE, RED)):
            counts = torch.histc(tensor.detach().cpu().float(), 40, low, high)
            axes.stairs(
                (counts / counts.sum()).tolist(),
                torch.linspace(low, high, 41).tolist(),
                color=colour,
                lw=1.5,
                label=label,
            )
        axes.set(title=group, xlabel="value", yscale="log")
    row[0, 0].set_ylabel("fraction")
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def curves(history: Sequence[Mapping], split: str = "test") -> Figure:
    """Loss and accuracy of one run over its epochs, in training and on the split it was evaluated on; below, the learning rate."""
    epochs = [epoch["epoch"] for epoch in history]
    figure, panels = plt.subplot_mosaic(
        [["loss", "accuracy"], ["rate", "rate"]], figsize=(8.6, 4.8), height_ratios=[4, 1]
    )
    loss, accuracy, rate = panels.values()
    for part, label, colour in (
        ("train", "training (mean over the epoch)", BLUE),
        ("test", split, RED),
    ):
        for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(
                epochs,
                [epoch[f"{part}_{measure}"] for epoch in history],
                "o-",
                ms=4,
                color=colour,
                label=label,
            )
    loss.set(title="Loss", ylabel="mean negative log-likelihood", yscale="log")
    loss.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5)),
        major_formatter="{x:g}",
        minor_locator=NullLocator(),
    )
    low = min(
        epoch[f"{part}_accuracy"] for epoch in history[2:] or history for part in ("train", "test")
    )
    bottom = max(0, math.floor(low))  # the first two epochs may be below
    accuracy.set(title="Accuracy", ylabel=f"accuracy (%), above {bottom} %", ylim=(bottom, 100.05))
    mark_target(accuracy)
    loss.legend(fontsize=9)
    rates = [epoch["learning_rate"] for epoch in history]
    rate.step(epochs, rates, color=GREY, where="mid")
    if min(rates) < 0.02 * max(rates):
        rate.set_yscale("log")
    else:
        rate.set_ylim(0, 1.2 * max(rates))
    rate.set_title("Learning rate at the start of each epoch")
    for axes in panels.values():
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def mark_target(axes: Axes) -> None:
    """Draw a line at 99.4 % accuracy."""
    axes.axhline(TARGET, color=GREY, ls="--", lw=1.2)
    axes.text(
        1.005,
        TARGET,
        "99.4 %",
        color=GREY,
        fontsize=9,
        va="center",
        transform=axes.get_yaxis_transform(),
    )


def bars(values: Mapping[str, Sequence[float]], xlabel: str, fmt: str = "{:.2f}") -> Figure:
    """Horizontal bars from top to bottom: the mean of each label's values, with their range as a line."""
    means = [sum(numbers) / len(numbers) for numbers in values.values()]
    ranges = [
        [mean - min(numbers), max(numbers) - mean] for mean, numbers in zip(means, values.values())
    ]
    figure, axes = plt.subplots(figsize=(8.6, 0.36 * len(values) + 0.9))
    lines = {"xerr": torch.tensor(ranges).T, "capsize": 3} if any(map(any, ranges)) else {}
    axes.bar_label(
        axes.barh(list(values), means, color=BLUE, height=0.6, **lines), fmt=fmt, padding=6
    )
    axes.set(xlabel=xlabel)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def confusion(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often each digit (row) was classified as each digit (column); the colours leave out the correct ones."""
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.4, 4.8))
    image = axes.imshow(wrong.numpy(), cmap="Reds")
    for row, column in counts.nonzero().tolist():
        light = wrong[row, column] > wrong.max() / 2
        axes.text(
            column,
            row,
            int(counts[row, column]),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if light else GREY if row == column else "black",
        )
    axes.set(xticks=range(10), yticks=range(10), xlabel="prediction", ylabel="label")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="misclassified images", shrink=0.85)
    return figure


def reliability(confidences: torch.Tensor, correct: torch.Tensor) -> Figure:
    """Accuracy over confidence, in bins of 10 %, with the mean confidence and the number of images of each bin.

    `confidences` are the probabilities of the predicted digits, `correct` whether these are right; both of shape (N,). A network is
    calibrated if every bar ends at its mark (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    confidences = confidences.cpu().double()
    bins = (confidences * 10).long().clamp(max=9)  # a confidence of 1 belongs to the last bin
    counts, hits, sums = (
        torch.bincount(bins, weights, minlength=10)
        for weights in (None, correct.cpu().double(), confidences)
    )
    used = counts.nonzero().flatten().tolist()
    centres = [10 * bin + 5 for bin in used]
    figure, axes = plt.subplots(figsize=(7.2, 4))
    axes.bar(centres, (100 * hits / counts)[used].tolist(), 9, color=BLUE, label="accuracy")
    axes.plot(
        centres,
        (100 * sums / counts)[used].tolist(),
        "_",
        color=RED,
        ms=34,
        mew=2.5,
        label="mean confidence",
    )
    axes.set_xticks(
        centres, [f"{10 * bin}–{10 * bin + 10}\n{counts[bin]:,}" for bin in used], fontsize=9
    )
    axes.set(
        xlabel="confidence (%), and below it the number of images",
        ylabel="accuracy, mean confidence (%)",
        ylim=(0, 101),
    )
    figure.legend(loc="outside upper center", ncols=2)
    return figure
