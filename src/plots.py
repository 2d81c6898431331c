"""Figures from arrays and histories. Knows no file and no experiment; every function returns a new figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TARGET = 99.4  # % test accuracy
TRAIN, TEST, QUIET = "#4477aa", "#cc3311", "#777777"  # distinct to colour-blind eyes too (Paul Tol)
STEP_COLOURS = ("#bbbbbb", "#4477aa", "#cc3311")
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


def predictions(images: torch.Tensor, probabilities: torch.Tensor, titles: Sequence[str]) -> Figure:
    """Each image of shape (N, 1, 28, 28) in [0, 1] beside its probabilities of the ten digits, shape (N, 10)."""
    figure, grid = plt.subplots(len(images), 2, figsize=(5.6, 1.5 * len(images)), squeeze=False, width_ratios=[1, 2.4])
    for (image_axes, axes), image, values, title in zip(grid, images, probabilities, titles):
        image_axes.imshow(image.squeeze().cpu(), cmap="gray_r", vmin=0, vmax=1)
        image_axes.set_axis_off()
        axes.bar(range(10), values.cpu(), color=[TEST if value == values.max() else TRAIN for value in values])
        axes.set(ylim=(0, 1.02), xticks=range(10), yticks=(0, 0.5, 1))
        axes.set_title(title, fontsize=9, loc="left", pad=3)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", visible=False)
    return figure


def curves(history: Sequence[Mapping]) -> Figure:
    """The four curves of one run over its epochs: loss and accuracy, in training and in the test."""
    epochs = [epoch["epoch"] for epoch in history]
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    for part, label, colour in (("train", "training (as seen while training)", TRAIN), ("test", "test", TEST)):
        loss.plot(epochs, [epoch[f"{part}_loss"] for epoch in history], "o-", ms=4, color=colour, label=label)
        accuracy.plot(epochs, [epoch[f"{part}_accuracy"] for epoch in history], "o-", ms=4, color=colour, label=label)
    loss.set(title="Loss", xlabel="epoch", ylabel="mean negative log-likelihood (nats)", yscale="log")
    # The first epochs, far below the others, may run out of the picture.
    settled = min(epoch[f"{part}_accuracy"] for epoch in history[2:] or history for part in ("train", "test"))
    accuracy.set(title="Accuracy", xlabel="epoch", ylabel="accuracy (%)", ylim=(max(0, settled - 0.3), 100.05))
    _target_line(accuracy)
    loss.legend(fontsize=9)
    for axes in (loss, accuracy):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _target_line(axes: Axes) -> None:
    axes.axhline(TARGET, color=QUIET, ls="--", lw=1.2)
    axes.text(1.005, TARGET, "99.4 %", color=QUIET, fontsize=9, va="center", transform=axes.get_yaxis_transform())


def spread(histories: Mapping[str, Sequence[Sequence[Mapping]]]) -> Figure:
    """Test accuracy per epoch of several recipes over their seeds: mean and range; and every seed in the last eight epochs."""
    figure, (whole, end) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    for (label, runs), colour in zip(histories.items(), STEP_COLOURS):
        epochs = [epoch["epoch"] for epoch in runs[0]]
        tests = torch.tensor([[epoch["test_accuracy"] for epoch in history] for history in runs], dtype=torch.float64)
        for axes in (whole, end):
            axes.plot(epochs, tests.mean(0), "o-", ms=4, color=colour, label=f"{label}: {tests[:, -1].mean():.2f} % at the end")
        whole.fill_between(epochs, tests.amin(0), tests.amax(0), color=colour, alpha=0.25, lw=0)
        end.plot(epochs, tests.T, color=colour, lw=0.8, alpha=0.6)
    whole.set(title="Mean and range over the seeds", xlabel="epoch", ylabel="test accuracy (%)", ylim=(96, 99.9))
    end.set(title="Mean and every seed, last eight epochs", xlabel="epoch", xlim=(epochs[-8:][0] - 0.2, epochs[-1] + 0.2),
            ylim=(99.15, 99.7))
    for axes in (whole, end):
        axes.xaxis.get_major_locator().set_params(integer=True)
        _target_line(axes)
    whole.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def path(values: Mapping[str, Sequence[float]], gained: Mapping[str, str]) -> Figure:
    """Recipes from top to bottom, each one change away from the one above: seeds, mean and standard deviation.

    `values` holds the accuracies in % of each recipe's seeds; beside them stands what the change `gained`, as text.
    """
    figure, axes = plt.subplots(figsize=(8.6, 0.42 * len(values) + 1.1))
    for row, (label, accuracies) in enumerate(values.items()):
        accuracies = torch.tensor(accuracies, dtype=torch.float64)
        seeds = axes.plot(accuracies, [row - 0.12] * len(accuracies), "o", ms=5, mfc="none", color=TRAIN)[0]
        average = axes.errorbar(accuracies.mean(), row + 0.12, xerr=_deviation(accuracies), fmt="s", ms=5, capsize=4, color=TEST)
        axes.text(1.01, row, gained.get(label, ""), va="center", fontsize=9, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(values)), values)
    axes.set(xlabel="validation accuracy (%)", ylim=(len(values) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    _seeds_legend(figure, seeds, average)
    return figure


def _deviation(values: torch.Tensor) -> float:
    return values.std().item() if len(values) > 1 else 0.0


def _seeds_legend(figure: Figure, seeds: Artist, average: Artist) -> None:
    figure.legend([seeds, average], ["one seed", "mean ± standard deviation"], loc="outside upper right", ncols=2, fontsize=9)


def confusion(labels: torch.Tensor, predictions: torch.Tensor) -> Figure:
    """How often a digit (row) was read as another (column); what was read right is left out of the colours."""
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    wrong = counts.clone().fill_diagonal_(0)
    figure, axes = plt.subplots(figsize=(5.4, 4.8))
    shown = axes.imshow(wrong, cmap="Reds")
    for row in range(10):
        for column in range(10):
            if counts[row, column]:
                light = row != column and wrong[row, column] > wrong.max() / 2
                axes.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=9,
                          color="white" if light else QUIET if row == column else "black")
    axes.set(xticks=range(10), yticks=range(10), xlabel="prediction", ylabel="label")
    axes.grid(visible=False)
    figure.colorbar(shown, ax=axes, label="wrong predictions (images)", shrink=0.85)
    return figure


def sweeps(named: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Several sweeps side by side on one scale: each seed, and mean ± standard deviation over the seeds."""
    figure, row = plt.subplots(1, len(named), figsize=(8.6, 3.5), sharey=True, squeeze=False,
                               width_ratios=[len(points) for points in named.values()])
    for axes, (setting, points) in zip(row.flat, named.items()):
        for position, values in enumerate(points.values()):
            values = torch.tensor(values, dtype=torch.float64)
            seeds = axes.plot([position - 0.12] * len(values), values, "o", ms=5, mfc="none", color=TRAIN)[0]
            average = axes.errorbar(position + 0.12, values.mean(), _deviation(values), fmt="s", ms=5, capsize=4, color=TEST)
        axes.set_xticks(range(len(points)), [label.replace(", ", ",\n") for label in points])
        axes.set(xlabel=setting, xlim=(-0.5, len(points) - 0.5))
        axes.grid(axis="x", visible=False)
    row[0, 0].set_ylabel("validation accuracy (%)")
    _seeds_legend(figure, seeds, average)
    return figure
