"""A whole recipe as data, and the parts of a run that it describes: model, optimizer and so on.

Read `Experiment` first. It refuses a wrong value when it is made; the `build_…` functions at the
end make the parts.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from frozendict import deepfreeze
from torch import nn, optim
from torch.optim import lr_scheduler

from .data import SPLITS, RandomAffine, affine
from .errors import InputError
from .models import MODELS

OPTIMIZERS = {
    optimizer.__name__: optimizer
    for optimizer in (
        optim.SGD,
        optim.Adam,
        optim.AdamW,
        optim.NAdam,
        optim.RAdam,
        optim.Adamax,
        optim.RMSprop,
        optim.Adagrad,
        optim.Adadelta,
    )
}
FUSED = ("SGD", "Adam", "AdamW")  # their fused implementation is faster: it is the default here
SCHEDULERS = {
    scheduler.__name__: scheduler
    for scheduler in (
        lr_scheduler.StepLR,
        lr_scheduler.MultiStepLR,
        lr_scheduler.ExponentialLR,
        lr_scheduler.PolynomialLR,
        lr_scheduler.LinearLR,
        lr_scheduler.ConstantLR,
        lr_scheduler.CosineAnnealingLR,
        lr_scheduler.CosineAnnealingWarmRestarts,
        lr_scheduler.OneCycleLR,
        lr_scheduler.CyclicLR,
    )
}
# What PyTorch and torchvision raise for a wrong argument.
ARGUMENT_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)


class RecipeError(InputError):
    """A value of a recipe is wrong; the message, one line, names the field and the value."""


@dataclass(frozen=True)
class Experiment:
    """A whole recipe.

    With a seed, a run is reproducible bit for bit on one CPU with the same code, PyTorch and number
    of threads.

    Each `…_args` is passed to the class named before it; `MODELS`, `OPTIMIZERS` and `SCHEDULERS`
    hold the names. Raises RecipeError for an invalid value. Records identify a run by these values,
    except `name`, and the seed, not by the code of the model: give a changed network a new name.
    """

    name: str
    model: str
    model_args: Mapping = field(default_factory=dict)
    normalized: bool = True  # images with mean 0 and standard deviation 1; else in [0, 1]
    augmentation: Mapping | None = None  # arguments of data.RandomAffine; None: no augmentation
    epochs: int = 15
    batch_size: int = 128
    optimizer: str = "Adam"
    optimizer_args: Mapping = field(default_factory=dict)
    scheduler: str | None = None  # OneCycleLR gets max_lr, the optimizer's lr, and total_steps
    scheduler_args: Mapping = field(default_factory=dict)
    ema_decay: float | None = None  # per batch, of the average of the weights, which is tested
    split: str = "test"  # a name of data.SPLITS: "validation" for selection, "test" to report

    def __post_init__(self):
        for name, value in vars(self).items():
            try:
                plain = json.loads(json.dumps(value))  # as the record holds it, without NumPy
            except (TypeError, ValueError) as error:
                raise RecipeError(f"{name}: {error}") from None
            object.__setattr__(self, name, deepfreeze(plain))
        if self.split == "fold 6":
            object.__setattr__(self, "split", "validation")
        _check_values(self)
        _check_parts(self)


def _check_values(experiment: Experiment) -> None:
    """Raise RecipeError for a value that is wrong by itself."""

    def require(condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise RecipeError(f"{name}={_format_value(getattr(experiment, name))}: {rule}")

    name = experiment.name
    valid = isinstance(name, str) and re.fullmatch(r"\w[\w .+-]{0,99}", name) is not None
    rule = "must be up to 100 letters, digits, spaces, '.', '+', '-' and '_'"
    require(valid, "name", f"{rule}, and begin with a letter, a digit or '_'")
    for field_name in ("epochs", "batch_size"):
        value = getattr(experiment, field_name)
        require(type(value) is int and value > 0, field_name, "must be a positive integer")
    require(isinstance(experiment.normalized, bool), "normalized", "must be True or False")
    decay = experiment.ema_decay
    valid = decay is None or (isinstance(decay, float) and 0 < decay < 1)
    require(valid, "ema_decay", "must be None or between 0 and 1")
    splits = ", ".join(map(repr, SPLITS))  # a name can hold a comma
    require(experiment.split in SPLITS, "split", f"choose one of {splits}")
    for field_name in ("model_args", "optimizer_args", "scheduler_args"):
        is_mapping = isinstance(getattr(experiment, field_name), Mapping)
        require(is_mapping, field_name, "must be a dict")
    valid = experiment.augmentation is None or bool(experiment.augmentation)
    require(valid, "augmentation", "must be None or name at least one argument")
    unused = experiment.scheduler is None and experiment.scheduler_args
    require(not unused, "scheduler_args", "there is no scheduler to pass them to")
    if experiment.scheduler == "OneCycleLR":
        given = experiment.scheduler_args.keys() & {"total_steps", "epochs", "steps_per_epoch"}
        require(not given, "scheduler_args", "epochs and batch_size determine the number of steps")
        # PyTorch accepts it, and divides by zero after the last batch.
        only_rises = experiment.scheduler_args.get("pct_start") == 1
        require(not only_rises, "scheduler_args", "pct_start must be below 1")


def _check_parts(experiment: Experiment) -> None:
    """Raise RecipeError for a name or an argument with which a part of the run cannot be built."""
    classes = {"model": MODELS, "optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}
    for part, known in classes.items():
        name = getattr(experiment, part)
        left_out = part == "scheduler" and name is None
        if name not in known and not left_out:
            raise RecipeError(f"{part}={name!r}: choose one of {', '.join(known)}")
    with (
        _as_recipe_error("model_args", experiment.model_args),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        build_model(experiment).eval()(torch.zeros(1, 1, 28, 28))
    with (
        _as_recipe_error("augmentation", experiment.augmentation),
        torch.random.fork_rng(devices=[]),
    ):
        augment = build_augmentation(experiment)
        if augment:
            matrices = augment.matrices(1)
            affine(torch.zeros(1, 1, 28, 28), matrices, augment.interpolation)
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    with _as_recipe_error("optimizer_args", _optimizer_arguments(experiment)):
        build_optimizer(experiment, [weight]).step()
    with _as_recipe_error("scheduler_args", experiment.scheduler_args):
        optimizer = build_optimizer(experiment, [weight])  # as in a run, one without a step
        steps = 997 * experiment.epochs  # of which no usual pct_start is exactly one
        scheduler = build_scheduler(experiment, optimizer, steps)
        if scheduler:
            optimizer.step()  # before the scheduler's, or PyTorch warns
            for _ in range(experiment.epochs):
                scheduler.step()


@contextmanager
def _as_recipe_error(name: str, value: object) -> Iterator[None]:
    """Turn what PyTorch or torchvision refuses into a RecipeError that names field and value."""
    try:
        yield
    except ARGUMENT_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"{name}={_format_value(value)}: {reason}") from error


def _format_value(value: object) -> str:
    """As Python writes it; a mapping as a plain dict."""
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)


def build_model(experiment: Experiment) -> nn.Module:
    """The network of a recipe, with random weights."""
    return MODELS[experiment.model](**experiment.model_args)


def build_augmentation(experiment: Experiment) -> RandomAffine | None:
    """The random transform of the training images, if the recipe has one."""
    return RandomAffine(**experiment.augmentation) if experiment.augmentation else None


def build_optimizer(
    experiment: Experiment, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer of a recipe for these parameters."""
    return OPTIMIZERS[experiment.optimizer](parameters, **_optimizer_arguments(experiment))


def _optimizer_arguments(experiment: Experiment) -> Mapping:
    defaults = {"fused": True} if experiment.optimizer in FUSED else {}
    return {**defaults, **experiment.optimizer_args}


def build_scheduler(
    experiment: Experiment, optimizer: torch.optim.Optimizer, steps: int
) -> lr_scheduler.LRScheduler | None:
    """The learning-rate scheduler of a recipe, if it has one.

    `steps` is the number of batches of the whole run. Raises RecipeError if OneCycleLR would rise
    over exactly one of them, where PyTorch divides by zero.
    """
    if experiment.scheduler is None:
        return None
    defaults = {}
    if experiment.scheduler == "OneCycleLR":
        if experiment.scheduler_args.get("pct_start", 0.3) * steps == 1:
            value = _format_value(experiment.scheduler_args)
            rule = f"pct_start must not be exactly one of the {steps} steps of this run"
            raise RecipeError(f"scheduler_args={value}: {rule}")
        defaults = {"max_lr": optimizer.param_groups[0]["lr"], "total_steps": steps}
    arguments = {**defaults, **experiment.scheduler_args}
    return SCHEDULERS[experiment.scheduler](optimizer, **arguments)
