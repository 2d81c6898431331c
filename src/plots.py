"""Figures from tensors, histories and numbers. Every function returns a new figure; none reads files or runs experiments."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

TARGET = 99.4  # % test accuracy
BLUE, RED, GREY = "#4477aa", "#cc3311", "#777777"  # colour-blind safe (Paul Tol)
plt.rcParams.update({
    "figure.dpi": 100, "savefig.dpi": 150, "figure.constrained_layout.use": True, "font.size": 11, "axes.titlesize": 12,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "legend.frameon": False,
})


def digits(images: torch.Tensor, titles: Sequence[object] = (), columns: int = 12) -> Figure:
    """A grid of images of shape (N, 1, 28, 28) in [0, 1], dark on white, each under its title of one or two lines."""
    rows, lines = max(1, -(-len(images) // columns)), max((str(title).count("\n") + 1 for title in titles), default=0)
    figure, grid = plt.subplots(rows, columns, figsize=(0.72 * columns, (0.72 + 0.18 * lines) * rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image in zip(grid.flat, images):
        axes.imshow(image.squeeze().cpu(), cmap="gray_r", vmin=0, vmax=1)
    for axes, title in zip(grid.flat, titles):
        axes.set_title(title, fontsize=9, pad=3)
    return figure


def curves(history: Sequence[Mapping]) -> Figure:
    """Loss and accuracy of one run over its epochs, in training and on the test set, and below them the learning rate."""
    epochs = [epoch["epoch"] for epoch in history]
    figure, ((loss, accuracy), rates) = plt.subplots(2, 2, figsize=(8.6, 4.4), sharex=True, height_ratios=[4, 1])
    for part, label, colour in (("train", "training (mean over the epoch)", BLUE), ("test", "test", RED)):
        for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(epochs, [epoch[f"{part}_{measure}"] for epoch in history], "o-", ms=4, color=colour, label=label)
    loss.set(title="Loss", ylabel="mean negative log-likelihood", yscale="log")
    loss.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_locator=NullLocator())
    low = min(epoch[f"{part}_accuracy"] for epoch in history[2:] or history for part in ("train", "test"))  # else cut off
    accuracy.set(title="Accuracy", ylabel="accuracy (%)", ylim=(max(0, low - 0.3), 100.05))
    _mark_target(accuracy)
    loss.legend(fontsize=9)
    for axes in rates:
        axes.step(epochs, [epoch["learning_rate"] for epoch in history], color=GREY, where="mid")
        axes.set(xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
    rates[0].set_ylabel("learning\nrate", fontsize=9)
    return figure


def _mark_target(axes: Axes) -> None:
    axes.axhline(TARGET, color=GREY, ls="--", lw=1.2)
    axes.text(1.005, TARGET, "99.4 %", color=GREY, fontsize=9, va="center", transform=axes.get_yaxis_transform())


def seeds(histories: Mapping[str, Sequence[Sequence[Mapping]]]) -> Figure:
    """Test accuracy per epoch of several recipes over their seeds: mean and range; and the last epochs of every seed, enlarged."""
    figure, (whole, end) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    for (label, runs), colour in zip(histories.items(), ("#999999", BLUE, RED)):
        if not runs:
            continue
        epochs = [epoch["epoch"] for epoch in runs[0]]
        accuracies = torch.tensor([[epoch["test_accuracy"] for epoch in history] for history in runs], dtype=torch.float64)
        whole.fill_between(epochs, accuracies.amin(0), accuracies.amax(0), color=colour, alpha=0.25, lw=0)
        end.plot(epochs, accuracies.T, color=colour, lw=0.7, alpha=0.5)
        for axes in (whole, end):
            axes.plot(epochs, accuracies.mean(0), "o-", ms=4, color=colour,
                      label=f"{label}: {accuracies[:, -1].mean():.2f} % ({len(runs)} seeds)")
    whole.set(title="Mean and range over the seeds", xlabel="epoch", ylabel="test accuracy (%)", ylim=(96, 99.9))
    end.set(title="Mean and every seed, above 99.15 %", xlabel="epoch", ylim=(99.15, 99.7),  # step 1 ends below
            xlim=(epochs[-8:][0] - 0.2, epochs[-1] + 0.2))
    for axes in (whole, end):
        axes.set_xticks(range(1, epochs[-1] + 1) if axes is whole else epochs[-8:])
        _mark_target(axes)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _dots(axes: Axes, values: Sequence[float], position: float, vertical: bool) -> None:
    """One dot for each seed beside its mean, which is a line; equal values are placed beside each other."""
    offsets = [0.09 * values[:index].count(value) for index, value in enumerate(values)]
    places, mean = [position + offset for offset in offsets], sum(values) / len(values)
    dots = {"marker": "o", "s": 22, "facecolors": "none", "edgecolors": BLUE, "linewidths": 1}
    line = ([position - 0.3, position + 0.3], [mean, mean])
    axes.scatter(*((places, values) if vertical else (values, places)), **dots, label="one seed")
    axes.plot(*(line if vertical else line[::-1]), color=RED, lw=2, label="mean")


def ablation(accuracies: Mapping[str, Sequence[float]], gains: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Recipes from top to bottom, each with one change more than the one above it.

    `accuracies` in % of the seeds of each recipe; `gains`: for each recipe but the first, the difference of the means from the one
    above, and its 95 % interval (low, high), in percentage points.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 0.42 * len(accuracies) + 1.2), sharey=True, width_ratios=[3, 2])
    rows = list(accuracies)
    for row, values in enumerate(accuracies.values()):
        _dots(left, values, row, vertical=False)
    for label, (gain, low, high) in gains.items():
        right.errorbar(gain, rows.index(label), xerr=[[gain - low], [high - gain]], fmt="s", ms=5, capsize=4, color=BLUE)
    right.axvline(0, color=GREY, lw=1.2)
    left.set_yticks(range(len(rows)), rows)
    left.set(xlabel="validation accuracy (%)", ylim=(len(rows) - 0.5, -0.5))
    right.set(xlabel="gain over the row above (pp),\n95 % interval")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    _legend(figure, left)
    return figure


def sweeps(settings: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Several sweeps side by side on one scale: the validation accuracy in % of every seed, and the mean over the seeds."""
    figure, row = plt.subplots(1, len(settings), figsize=(8.6, 3.5), sharey=True, squeeze=False,
                               width_ratios=[len(points) for points in settings.values()])
    for axes, (setting, points) in zip(row.flat, settings.items()):
        for position, values in enumerate(points.values()):
            _dots(axes, values, position, vertical=True)
        axes.set_xticks(range(len(points)), [label.replace(" ", "\n") for label in points])
        axes.set(xlabel=setting, xlim=(-0.5, len(points) - 0.5))
        axes.grid(axis="x", visible=False)
    row[0, 0].set_ylabel("validation accuracy (%)")
    _legend(figure, row[0, 0])
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*(entries[:2] for entries in axes.get_legend_handles_labels()), loc="outside upper right", ncols=2, fontsize=9)


def bars(ratios: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    """Horizontal bars from top to bottom: the mean of each label's values, with their range as a line."""
    means = [sum(values) / len(values) for values in ratios.values()]
    ranges = [[mean - min(values), max(values) - mean] for mean, values in zip(means, ratios.values())]
    figure, axes = plt.subplots(figsize=(8.6, 0.36 * len(ratios) + 0.9))
    axes.bar_label(axes.barh(list(ratios), means, color=BLUE, height=0.6, xerr=torch.tensor(ranges).T, capsize=3), fmt="  %.2f")
    axes.set(xlabel=xlabel)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def confusion(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often each digit (row) was classified as each digit (column); the colours leave out the correct ones."""
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.4, 4.8))
    image = axes.imshow(wrong, cmap="Reds")
    for row, column in counts.nonzero().tolist():
        light = wrong[row, column] > wrong.max() / 2
        axes.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=9,
                  color="white" if light else GREY if row == column else "black")
    axes.set(xticks=range(10), yticks=range(10), xlabel="prediction", ylabel="label")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="misclassified images", shrink=0.85)
    return figure
