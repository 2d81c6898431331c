"""The pictures of the studies, from numbers: every seed, means, and intervals of differences."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullLocator

from ..experiments import TARGET
from ..plots import BLUE, GREY, RED, mark_target

LIGHT_GREY = "#999999"
ENLARGED = (99.15, 99.7)  # %, of the last epochs of the steps


def steps(accuracies: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Test accuracy in % per epoch of up to three recipes, over their seeds.

    `accuracies` are lists of epochs for each seed, by the recipe's name. Left the mean and the
    range; right the last eight epochs of every seed, enlarged.
    """
    figure, (whole, end) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    count, below = max(len(run) for runs in accuracies.values() for run in runs), []
    first = max(1, count - 7)
    colours = (LIGHT_GREY, BLUE, RED)[-len(accuracies) :]
    for (label, runs), colour in zip(accuracies.items(), colours, strict=True):
        values, epochs = np.array(runs), range(1, count + 1)
        range_style = {"color": colour, "alpha": 0.25, "lw": 0}
        whole.fill_between(epochs, values.min(0), values.max(0), **range_style)
        end.plot(epochs, values.T, color=colour, lw=0.9, alpha=min(0.5, 20 / len(runs)))
        for axes in (whole, end):
            name = f"{label}: {mean(values[:, -1].tolist()):.2f} % ({len(runs)} seeds)"
            axes.plot(epochs, values.mean(0), "o-", ms=4, color=colour, label=name)
        below += [label] if values[:, first - 1 :].max() < ENLARGED[0] else []
    title = "Last epochs of every seed" + "".join(f" ({name} is below)" for name in below)
    whole.set(title="Mean and range over the seeds", ylim=(96, 99.9))
    end.set(title=title, ylim=ENLARGED, xlim=(first - 0.2, count + 0.2))
    whole.set_ylabel("test accuracy (%)")
    for axes, start in ((whole, 1), (end, first)):
        axes.set(xlabel="epoch", xticks=range(start, count + 1))
        if axes.get_ylim()[1] > TARGET:
            mark_target(axes, TARGET)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def lowest(values: Sequence[float]) -> Figure:
    """How many seeds of step 3 have each lowest accuracy, in %: a histogram."""
    figure, axes = plt.subplots(figsize=(9.6, 3))
    hundredths = np.rint(100 * np.array(values)).astype(int)
    found, counts = np.unique(hundredths, return_counts=True)
    axes.bar(found / 100, counts, 0.008, color=BLUE)
    axes.axvline(TARGET, color=GREY, ls="--", lw=1.2)
    style = {"color": GREY, "fontsize": 9, "ha": "center"}
    axes.text(TARGET, 1.02, f"{TARGET} %", transform=axes.get_xaxis_transform(), **style)
    axes.xaxis.set_major_locator(MultipleLocator(0.02))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="lowest of the last five epochs of step 3, test (%)", ylabel="seeds")
    return figure


def study(
    accuracies: Mapping[str, Sequence[float]],
    differences: Mapping[str, Sequence[float]],
    label: str,
    reference: str | None,
) -> Figure:
    """A study, one recipe per row: every seed and the mean; the difference from the reference.

    `accuracies` in %, of every seed. `differences` in percentage points: for each recipe that has a
    reference, the difference, and the ends of its interval, which are infinite for a single seed.
    `label` names the left axis, `reference` what the right one compares with; without it there is
    no right one.
    """
    rows = list(accuracies)
    size = (9.6, 0.36 * len(rows) + 1.3)
    figure, grid = plt.subplots(1, 2 if reference else 1, figsize=size, sharey=True, squeeze=False)
    left, right = grid[0, 0], grid[0, -1]
    for row, values in enumerate(accuracies.values()):
        heights = [row + 0.12 * place for place in _stack(values)]
        circles = {"facecolors": "none", "edgecolors": BLUE, "linewidths": 1, "label": "one seed"}
        left.scatter(values, heights, s=22, **circles)
        left.plot([mean(values)] * 2, [row - 0.3, row + 0.3], color=RED, lw=2, label="mean")
    left.set_yticks(range(len(rows)), rows)
    left.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
    if reference:
        for name, (gain, low, high) in differences.items():
            style = {"fmt": "s", "ms": 5, "capsize": 4, "color": BLUE}
            style["mfc"] = BLUE if math.isfinite(low) else "none"
            right.errorbar(gain, rows.index(name), xerr=[[gain - low], [high - gain]], **style)
        right.axvline(0, color=GREY, lw=1.2)
        right.set(xlabel=f"difference from {reference}\n(pp), 95 % interval")
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[:2], labels[:2], loc="outside upper right", ncols=2, fontsize=9)
    return figure


def _stack(values: Sequence[float]) -> list[int]:
    """A place for each value, so that equal ones do not hide each other: 0, then -1, 1, -2 …"""
    counts = [values[:i].count(value) for i, value in enumerate(values)]
    return [(-1) ** count * -(-count // 2) for count in counts]


def worth(
    accuracies: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    claims: Sequence[Sequence[float]] = (),
) -> Figure:
    """What a quantity is worth: accuracy in % over it, logarithmic; every seed, and the means.

    `accuracies`: those of the seeds, by the quantity as a label such as "7,946"; equal ones lie
    side by side. `claims`: results of others, each a quantity and an accuracy, numbered from 1.
    """
    figure, axes = plt.subplots(figsize=(9.6, 4.6))
    quantities = [int(label.replace(",", "")) for label in accuracies]
    seeds = [
        (quantity * 1.012**place, value)
        for quantity, values in zip(quantities, accuracies.values(), strict=True)
        for place, value in zip(_stack(values), values, strict=True)
    ]
    axes.plot(*zip(*seeds), "o", ms=5, mfc="none", mec=BLUE, label="ours, one seed")
    means = [mean(values) for values in accuracies.values()]
    axes.plot(quantities, means, "-_", color=RED, ms=14, mew=2.5, label="ours, mean of the seeds")
    if claims:
        axes.plot(*zip(*claims), "x", color="black", ms=6, mew=1.5, label="others, as listed")
    for number, claim in enumerate(claims, 1):
        axes.annotate(str(number), claim, (5, 4), textcoords="offset points", fontsize=9)
    every = [*quantities, *(quantity for quantity, _ in claims)]
    limits = 0.85 * min(every), 1.18 * max(every)
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log", xlim=limits)
    axes.set_xticks(quantities, list(accuracies))
    axes.xaxis.set_minor_locator(NullLocator())
    mark_target(axes, TARGET)
    figure.legend(loc="outside upper center", ncols=3)
    return figure
