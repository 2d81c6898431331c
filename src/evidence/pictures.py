"""The pictures of the studies, from rows: every seed, means, and intervals of differences."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..data import SPLITS, load_mnist
from ..experiments import STEPS, TARGET
from ..models import count_parameters
from ..plots import BLUE, GREY, RED, digits, mark_target
from ..recipes import build_model
from .formats import format_number
from .misclassified import read_errors, shared_by_all
from .robustness import STRENGTHS, Curves, stack_accuracies
from .rows import Row, Rows
from .studies import STUDIES

LIGHT_GREY = "#999999"
ENLARGED = (99.15, 99.7)  # %, of the last epochs of the steps
LOWEST_DRAWN = 95  # %: a seed below it would squeeze all others together


def steps(rows: Rows) -> Figure:
    """Test accuracy in % per epoch of the three steps, over their seeds.

    Mean and range; right the last eight epochs, enlarged.
    """
    figure, (whole, end) = plt.subplots(1, 2, figsize=(9.6, 4.2))
    below = []
    lengths = [len(history) for step in STEPS for history in rows[step][step].histories]
    count = max(lengths, default=1)
    first = max(1, count - 7)
    for number, (step, colour) in enumerate(zip(STEPS, (LIGHT_GREY, BLUE, RED), strict=True), 1):
        histories = rows[step][step].histories
        if not histories:
            continue
        values = np.array([[epoch["test_accuracy"] for epoch in history] for history in histories])
        epochs = range(1, values.shape[1] + 1)
        name, seeds = f"step {number}", len(values)
        label = f"{name}: {format_number(mean(values[:, -1].tolist()))} % ({seeds} seeds)"
        for axes in (whole, end):
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.25, lw=0)
            axes.plot(epochs, values.mean(0), "o-", ms=4, color=colour, label=label)
        if values[:, -8:].max() < ENLARGED[0]:
            below.append(name)
    title = "The last epochs, enlarged" + "".join(f" ({name} is below)" for name in below)
    whole.set(title="Mean and range over the seeds", ylim=(96, 99.9))
    end.set(title=title, ylim=ENLARGED, xlim=(first - 0.2, count + 0.2))
    whole.set_ylabel("test accuracy (%)")
    for axes, start in ((whole, 1), (end, first)):
        axes.set(xlabel="epoch", xticks=range(start, count + 1))
        if axes.get_ylim()[1] > TARGET:
            mark_target(axes, TARGET)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def consistency(rows: Rows) -> Figure:
    """The share of seeds, in %, whose last five epochs all reach an accuracy, over that accuracy.

    At 99.4 % a dot marks the share of consistent seeds; beside it, the curve shows the margin.
    """
    curves = {
        "step 2": (rows["regularization"]["regularization"], BLUE, "-"),
        "step 3": (rows["augmentation"]["augmentation"], RED, "-"),
        "the original's step 2": (rows["original"]["regularization"], BLUE, ":"),
        "the original's step 3": (rows["original"]["augmentation"], RED, ":"),
    }
    figure, axes = plt.subplots(figsize=(9.6, 3.4))
    for name, (row, colour, style) in curves.items():
        if not row.records:
            continue
        failed = len(row.records) - len(row.lowest)  # they reach no accuracy that is shown
        values = [0.0] * failed + sorted(row.lowest)
        # Every seed reaches the first value, and one seed fewer each next one.
        shares = [100 * (1 - index / len(values)) for index in range(len(values))]
        label = f"{name} ({len(values)} seeds)"
        accuracies, shares = [0, *values, 100], [100, *shares, 0]
        axes.step(accuracies, shares, where="pre", color=colour, ls=style, label=label)
        axes.plot(TARGET, 100 * row.consistent / len(row.records), "o", color=colour)
    axes.axvline(TARGET, color=GREY, ls="--", lw=1.2)
    text = {"color": GREY, "fontsize": 9, "ha": "center"}
    axes.text(TARGET, 1.02, f"{TARGET} %", transform=axes.get_xaxis_transform(), **text)
    axes.set(xlim=(99, 99.65), ylim=(0, 102), ylabel="share of seeds (%)")
    axes.set_xlabel("accuracy that the last five epochs all reach, test (%)")
    if axes.lines[1:]:  # besides the target's
        figure.legend(loc="outside upper center", ncols=4, fontsize=9)
    return figure


def study(name: str, rows: Mapping[str, Row]) -> Figure:
    """A study, one recipe per row: the lowest accuracy in % of every seed, and their mean.

    Right the difference from the reference, if the study has one. A recipe is left out if one of
    its seeds does not learn or is below `LOWEST_DRAWN`.
    """
    plan = STUDIES[name]
    shown = [row for row in rows.values() if row.all_learn and min(row.lowest) >= LOWEST_DRAWN]
    size = (9.6, 0.36 * len(shown) + 1.3)
    columns = 2 if plan.reference else 1
    figure, grid = plt.subplots(1, columns, figsize=size, sharey=True, squeeze=False)
    left, right = grid[0, 0], grid[0, -1]
    _draw_seeds(left, [row.lowest for row in shown])
    left.set_yticks(range(len(shown)), [row.label for row in shown])
    left.set(xlabel=_axis_label(name), ylim=(max(len(shown), 1) - 0.5, -0.5))
    if plan.reference:
        _draw_differences(right, shown)
        right.set(xlabel=f"difference from {plan.reference}\n(pp), 95 % interval")
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
    handles, labels = left.get_legend_handles_labels()
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1)}  # above the seeds
    left.legend(handles[:2], labels[:2], **place, ncols=2, fontsize=9)
    return figure


def _axis_label(name: str) -> str:
    """The lowest accuracy, and the images on which the study measures it."""
    splits = [recipe.split for recipe in STUDIES[name].experiments.values()]
    images = {SPLITS[split].evaluate for split in splits}
    # Of splits with the same images, a longer name only says more about the training images.
    evaluated = min(splits, key=len) if len(images) == 1 else "each row's images"
    return f"lowest of the last five epochs,\n{evaluated} (%)"


def _draw_seeds(axes: Axes, rows: Sequence[Sequence[float]]) -> None:
    """A circle for every seed, and a line at the mean, row by row."""
    for number, values in enumerate(rows):
        heights = [number + 0.12 * offset for offset in _stack(values)]
        circles = {"facecolors": "none", "edgecolors": BLUE, "linewidths": 1, "label": "one seed"}
        axes.scatter(values, heights, s=22, **circles)
        axes.plot([mean(values)] * 2, [number - 0.3, number + 0.3], color=RED, lw=2, label="mean")


def _draw_differences(axes: Axes, rows: Sequence[Row]) -> None:
    """The differences with their intervals; those of a single seed are hollow and have none."""
    for number, row in enumerate(rows):
        if row.difference:
            gain, low, high = row.difference
            style = {"fmt": "s", "ms": 5, "capsize": 4, "color": BLUE}
            style["mfc"] = BLUE if math.isfinite(low) else "none"
            axes.errorbar(gain, number, xerr=[[gain - low], [high - gain]], **style)
    axes.axvline(0, color=GREY, lw=1.2)


def _stack(values: Sequence[float]) -> list[int]:
    """An offset for each value, so that equal ones do not hide each other: 0, then -1, 1, -2 …"""
    offsets = []
    for index, value in enumerate(values):
        count = values[:index].count(value)
        distance = (count + 1) // 2
        offsets.append(-distance if count % 2 else distance)
    return offsets


def epochs(rows: Rows) -> Figure:
    """What an epoch is worth: the lowest accuracy over the number of epochs."""
    recipes = STUDIES["epochs"].experiments
    samples = {
        recipes[label].epochs: row.lowest
        for label, row in rows["epochs"].items()
        if row.is_comparable
    }
    return _draw_accuracy_over(samples, "epochs", "lowest of the last five epochs (%)")


def parameters(rows: Rows, claims: Sequence[Mapping]) -> Figure:
    """What a parameter is worth: the last accuracy over the number, beside results of others.

    Of a result without a last accuracy, the best one is drawn.
    """
    recipes = STUDIES["parameters"].experiments
    samples = {
        count_parameters(build_model(recipes[label])): row.last
        for label, row in rows["parameters"].items()
        if row.all_learn
    }
    points = [(claim["parameters"], claim["last"] or claim["best"]) for claim in claims]
    return _draw_accuracy_over(
        samples, "parameters", "test accuracy after the last epoch (%)", points
    )


def _draw_accuracy_over(
    accuracies: Mapping[int, Sequence[float]],
    xlabel: str,
    ylabel: str,
    claims: Sequence[Sequence[float]] = (),
) -> Figure:
    """Accuracy in % over a quantity, on a logarithmic axis: every seed, and the means.

    `accuracies`: those of the seeds, by the quantity; equal ones lie side by side. `claims`:
    results of others, each a quantity and an accuracy, numbered from 1 where there is room.
    """
    figure, axes = plt.subplots(figsize=(9.6, 4.6))
    quantities = list(accuracies)
    seeds = []
    for quantity, values in accuracies.items():
        positions = [quantity * 1.012**offset for offset in _stack(values)]
        axes.plot(positions, values, "o", ms=5, mfc="none", mec=BLUE)
        seeds.extend(zip(positions, values, strict=True))
    axes.plot([], [], "o", ms=5, mfc="none", mec=BLUE, label="ours, one seed")
    means = [mean(values) for values in accuracies.values()]
    axes.plot(quantities, means, "-_", color=RED, ms=14, mew=2.5, label="ours, mean of the seeds")
    if claims:
        axes.plot(*zip(*claims), "x", color="black", ms=6, mew=1.5, label="others, as listed")
        _write_numbers(axes, claims, [*claims, *seeds])
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log")
    shown = [*quantities, *(quantity for quantity, _ in claims)]
    if shown:
        axes.set_xlim(0.85 * min(shown), 1.18 * max(shown))
    axes.set_xticks(quantities, [f"{quantity:,}" for quantity in quantities])
    axes.xaxis.set_minor_locator(NullLocator())
    mark_target(axes, TARGET)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _write_numbers(
    axes: Axes, points: Sequence[Sequence[float]], drawn: Sequence[Sequence[float]]
) -> None:
    """Write the number of each point, from 1, to its upper right, unless it would hide something.

    It would hide a `drawn` point close to its upper right, or the number of a point close by.
    """
    numbered = []
    for number, (quantity, accuracy) in enumerate(points, 1):
        hides_point = any(1 < x / quantity < 1.13 and 0 < y - accuracy < 0.08 for x, y in drawn)
        hides_number = any(
            0.92 < x / quantity < 1.09 and abs(y - accuracy) < 0.05 for x, y in numbered
        )
        if not hides_point and not hides_number:
            position = quantity, accuracy
            axes.annotate(str(number), position, (5, 4), textcoords="offset points", fontsize=9)
            numbered.append(position)


def robustness(networks: Mapping[str, Sequence[Curves]]) -> Figure:
    """Accuracy in % over the strength of each distortion, of up to four named networks.

    Of several seeds: their mean and, shaded, their range.
    """
    figure, row = plt.subplots(1, len(STRENGTHS), figsize=(8, 2.4), sharey=True)
    styles = ((BLUE, "-"), (RED, "-"), (RED, "--"), (GREY, ":"))
    if len(networks) > len(styles):
        raise ValueError(f"there are styles for {len(styles)} networks, not for {len(networks)}")
    for axes, (distortion, strengths) in zip(row, STRENGTHS.items(), strict=True):
        for (name, seeds), (colour, line) in zip(networks.items(), styles):
            style = {"ls": line, "lw": 1.2, "marker": "o", "ms": 3, "color": colour}
            accuracies = stack_accuracies(seeds, distortion)
            axes.plot(strengths, accuracies.mean(axis=0), label=name, **style)
            lowest, highest = accuracies.min(axis=0), accuracies.max(axis=0)
            axes.fill_between(strengths, lowest, highest, color=colour, alpha=0.2, lw=0)
        axes.set(xlabel=distortion, xticks=strengths)
    row[0].set_ylabel("accuracy (%)")
    if networks:
        figure.legend(
            *row[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9
        )
    return figure


def shared_errors(records: Sequence[Mapping]) -> Figure:
    """The images that every run misclassifies: each with its digit, and what most runs see."""
    if not records:
        return digits(torch.empty(0, 1, 28, 28))
    shared = shared_by_all(map(read_errors, records))
    _, (images, labels) = load_mnist(records[0]["recipe"]["split"])
    indices = list(shared)
    titles = [f"{labels[index]} → {prediction}" for index, prediction in shared.items()]
    return digits(images[indices], titles, columns=13)
