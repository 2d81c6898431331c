"""What a study is, as data, and how recipes are varied for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..recipes import Experiment


@dataclass(frozen=True)
class Study:
    """A question, what is varied, the recipes by the labels of the tables, and the seeds.

    Raises ValueError if no recipe has the label of the reference.
    """

    question: str
    setting: str
    experiments: Mapping[str, Experiment]
    reference: str | None = None  # the label that the others are compared with, or "the row above"
    seeds: int = 10  # 1 to this number

    def __post_init__(self) -> None:
        if self.reference not in (None, "the row above", *self.experiments):
            fault = f"no recipe has the label of the reference, {self.reference!r}"
            raise ValueError(f"{fault}: choose from {', '.join(self.experiments)}")

    def runs(self, seeds: int | None = None) -> list[tuple[Experiment, int]]:
        """Every recipe with each seed, or with seeds 1 to `seeds`; one seed after the other."""
        last = seeds or self.seeds
        recipes = self.experiments.values()
        return [(recipe, seed) for seed in range(1, last + 1) for recipe in recipes]

    def comparisons(self) -> dict[str, str]:
        """For each label that is compared with another, this other one."""
        labels = list(self.experiments)
        if self.reference is None:
            return {}
        if self.reference == "the row above":
            return dict(zip(labels[1:], labels))
        return {label: self.reference for label in labels if label != self.reference}


def vary(experiment: Experiment, changes: Mapping[str, object]) -> Experiment:
    """The experiment with changes, such as {"ema_decay": None} or {"optimizer_args.lr": 0.1}."""
    for path, value in changes.items():
        field, _, argument = path.partition(".")
        if argument:
            value = {**getattr(experiment, field), argument: value}
        experiment = replace(experiment, **{field: value})
    return experiment


def sweep(experiment: Experiment, path: str, values: Iterable[float]) -> dict[str, Experiment]:
    """The experiment with each of these values at `path`, as for `vary`; the labels are values."""
    return {f"{value:g}": vary(experiment, {path: value}) for value in values}
