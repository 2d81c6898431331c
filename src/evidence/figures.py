"""Figures of the studies, from numbers: every seed, the mean, and the intervals of the differences."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..plots import BLUE, GREY, RED, TARGET, mark_target

LIGHT_GREY = "#999999"


def steps(
    histories: Mapping[str, Sequence[Sequence[Mapping]]],
    enlarged: tuple[float, float] = (99.15, 99.7),
) -> Figure:
    """Test accuracy per epoch of up to three recipes over their seeds: mean and range; and the last epochs of every seed.

    `enlarged` are the limits in % of the last epochs; the title names the recipes that stay below.
    """
    figure, (whole, end) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    below, count = [], max((len(run) for runs in histories.values() for run in runs), default=1)
    for (label, runs), colour in zip(histories.items(), (LIGHT_GREY, BLUE, RED)[-len(histories) :]):
        if not runs:
            continue
        accuracies, epochs = (
            np.array([[epoch["test_accuracy"] for epoch in history] for history in runs]),
            range(1, count + 1),
        )
        whole.fill_between(
            epochs, accuracies.min(0), accuracies.max(0), color=colour, alpha=0.25, lw=0
        )
        end.plot(epochs, accuracies.T, color=colour, lw=0.9, alpha=0.5)
        for axes in (whole, end):
            axes.plot(
                epochs,
                accuracies.mean(0),
                "o-",
                ms=4,
                color=colour,
                label=f"{label}: {accuracies[:, -1].mean():.2f} % ({len(runs)} seed{'s' * (len(runs) > 1)})",
            )
        below += [label] if accuracies[:, -8:].max() < enlarged[0] else []
    whole.set(
        title="Mean and range over the seeds",
        xlabel="epoch",
        ylabel="test accuracy (%), above 96 %",
        ylim=(96, 99.9),
    )
    end.set(
        title=f"Every seed, above {enlarged[0]} %"
        + "".join(f"; {label} is below" for label in below),
        xlabel="epoch",
        ylim=enlarged,
        xlim=(max(1, count - 7) - 0.2, count + 0.2),
    )
    for axes in (whole, end):
        axes.set_xticks(range(1 if axes is whole else max(1, count - 7), count + 1))
        if axes.get_ylim()[1] > TARGET:
            mark_target(axes)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def study(
    accuracies: Mapping[str, Sequence[float]],
    differences: Mapping[str, Sequence[float]],
    accuracy: str,
    reference: str | None,
) -> Figure:
    """A study, one recipe per row: the accuracy in % of every seed and their mean, and the difference from the reference.

    `differences`: for each recipe that has a reference, the difference and its 95 % interval in percentage points: difference,
    low, high. Of a recipe with one seed, the interval is infinite, and the marker hollow. `accuracy` names the left axis,
    `reference` what the right one compares with; without it there is no right one.
    """
    rows = list(accuracies)
    figure, grid = plt.subplots(
        1, 2 if reference else 1, figsize=(9.6, 0.36 * len(rows) + 1.3), sharey=True, squeeze=False
    )
    left, right = grid[0, 0], grid[0, -1]
    for row, values in enumerate(accuracies.values()):
        heights = [row + 0.12 * place for place in _stack(values)]
        left.scatter(
            values,
            heights,
            s=22,
            facecolors="none",
            edgecolors=BLUE,
            linewidths=1,
            label="one seed",
        )
        left.plot([mean(values)] * 2, [row - 0.3, row + 0.3], color=RED, lw=2, label="mean")
    left.set_yticks(range(len(rows)), rows)
    left.xaxis.set_major_locator(MaxNLocator(5))
    left.set(xlabel=accuracy, ylim=(len(rows) - 0.5, -0.5))
    if reference:
        for label, (gain, low, high) in differences.items():
            right.errorbar(
                gain,
                rows.index(label),
                xerr=[[gain - low], [high - gain]],
                fmt="s",
                ms=5,
                capsize=4,
                color=BLUE,
                mfc=BLUE if math.isfinite(low) else "none",
            )
        right.axvline(0, color=GREY, lw=1.2)
        right.xaxis.set_major_locator(MaxNLocator(5))
        right.set(xlabel=f"difference from {reference} (pp), 95 % interval")
    for axes in grid.flat:
        axes.grid(axis="y", visible=False)
    figure.legend(
        *(entries[:2] for entries in left.get_legend_handles_labels()),
        loc="outside upper right",
        ncols=2,
        fontsize=9,
    )
    return figure


def _stack(values: Sequence[float]) -> list[int]:
    """A place for each value, so that equal ones do not hide each other: 0, then -1, 1, -2, 2 and so on."""
    counts = [values[:i].count(value) for i, value in enumerate(values)]
    return [(-1) ** count * -(-count // 2) for count in counts]


def worth(
    accuracies: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    claims: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """What a quantity is worth: accuracy in % over it, on a logarithmic axis; every seed, and the mean.

    `accuracies`: those of the seeds, by the quantity as a label such as "7,946"; equal ones lie side by side. `claims`: results of
    others by their names, each a quantity and the accuracy of a single seed. Without either, the figure is empty.
    """
    figure, axes = plt.subplots(figsize=(9.6, 4.6))
    quantities = [int(label.replace(",", "")) for label in accuracies]
    seeds = [
        (quantity * 1.012**place, value)
        for quantity, values in zip(quantities, accuracies.values())
        for place, value in zip(_stack(values), values)
    ]
    axes.plot(
        [quantity for quantity, _ in seeds],
        [value for _, value in seeds],
        "o",
        ms=5,
        mfc="none",
        mec=BLUE,
        label="ours, one seed",
    )
    axes.plot(
        quantities,
        [*map(mean, accuracies.values())],
        "-_",
        color=RED,
        ms=14,
        mew=2.5,
        label="ours, mean over the seeds",
    )
    if claims:
        axes.plot(
            *zip(*claims.values()),
            "x",
            color="black",
            ms=6,
            mew=1.5,
            label="others: one seed each, test set watched",
        )
        for name, (quantity, value) in claims.items():
            if (
                abs(value - TARGET) < 0.02
            ):  # below the cross, since the target's line runs beside it
                offset, side = (0, -14), "center"
            elif quantity < max(quantities, default=0):
                offset, side = (-6, 0), "right"
            else:
                offset, side = (6, -3), "left"
            axes.annotate(
                name,
                (quantity, value),
                offset,
                textcoords="offset points",
                fontsize=9,
                ha=side,
                va="center",
            )
    every = [*quantities, *(quantity for quantity, _ in (claims or {}).values())] or [1]
    axes.set(
        xlabel=xlabel, ylabel=ylabel, xscale="log", xlim=(0.85 * min(every), 1.18 * max(every))
    )
    axes.set_xticks(quantities, list(accuracies))
    axes.xaxis.set_minor_locator(NullLocator())
    mark_target(axes)
    figure.legend(loc="outside upper center", ncols=3)
    return figure
