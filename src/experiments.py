"""A whole recipe as data, the three steps of the series, and `run`, which trains one.

Read `Experiment` and the three steps first, then `run` from top to bottom, then `prepare`.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from . import store
from .data import Loader, RandomAffine, load_mnist
from .device import environment, pick_device, pick_precision, tune_malloc
from .models import MODELS
from .training import DivergenceError, Setup, fit, moving_average

TARGET = 99.4  # % accuracy: a run is consistent if each of its last five epochs reaches it
SMOKE_TEST_SIZE = 2_000  # images to train on, and to test on
FUSED = ("SGD", "Adam", "AdamW")  # one kernel for all parameters
OPTIMIZERS = (*FUSED, "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop")
SCHEDULERS = (
    *("StepLR", "MultiStepLR", "ExponentialLR", "PolynomialLR", "LinearLR", "ConstantLR"),
    *("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "CyclicLR"),
)


class RecipeError(ValueError):
    """A value of a recipe is wrong; the message, one line, names the field and the value."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message alone
        return [f"{type(self).__name__}: {self}"]


class Interrupted(KeyboardInterrupt):
    """The user interrupted a run; the message says how to resume it."""

    _render_traceback_ = RecipeError._render_traceback_


@dataclass(frozen=True)
class Experiment:
    """A whole recipe. With a seed, it makes a run that is the same bit for bit on one machine.

    Each `…_args` is passed to the class named before it, from `models.MODELS`, `torch.optim` or
    `torch.optim.lr_scheduler`. Raises RecipeError for a value that cannot be right.
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
    split: str = "test"  # to evaluate on: "test", "validation" for selection, or a fold
    precision: str = "auto"  # "float32", "bfloat16", or "auto": the faster one on the device

    def __post_init__(self):
        for name, value in vars(self).items():
            try:
                object.__setattr__(self, name, store.freeze(value))
            except TypeError as error:
                raise RecipeError(f"{name}={value!r}: {error}") from None
        if self.split == "fold 6":
            object.__setattr__(self, "split", "validation")
        for name, right, wanted in (
            ("epochs", type(self.epochs) is int and self.epochs > 0, "a positive integer"),
            (
                "batch_size",
                type(self.batch_size) is int and self.batch_size > 0,
                "a positive integer",
            ),
            ("normalized", isinstance(self.normalized, bool), "True or False"),
            ("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "None or in (0, 1)"),
        ):
            if not right:
                raise RecipeError(f"{name} must be {wanted}, got {getattr(self, name)!r}")


# 98.66 ± 0.23 % of the test images after the last epoch, 0 of 10 seeds consistent
BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.002})
# 99.37 ± 0.05 %, 1 of 10 seeds consistent
REGULARIZATION = Experiment(
    "regularization",
    "RegularizedNet",
    model_args={"dropout": 0.0},
    optimizer_args={"lr": 0.01},
    scheduler="StepLR",
    scheduler_args={"step_size": 5, "gamma": 0.1},
)
# 99.54 ± 0.04 %, 30 of 30 seeds consistent
AUGMENTATION = Experiment(
    "augmentation",
    "AugmentedNet",
    augmentation={
        "degrees": 10,
        "translate": (1 / 28, 1 / 28),
        "scale": (0.9, 1.1),
        "shear": 6,
        "interpolation": "nearest",
    },
    optimizer="SGD",
    optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
    scheduler="OneCycleLR",
    scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
    ema_decay=0.998,
)
STEPS = {step.name: step for step in (BASIC, REGULARIZATION, AUGMENTATION)}


def run(
    experiment: Experiment,
    seed: int = 1,
    device: str | None = None,
    *,
    progress: bool = True,
    keep: bool = True,
    fresh: bool = False,
) -> tuple[nn.Module, dict]:
    """Train one recipe with one seed; returns the trained model and the record of the run.

    An interrupted run resumes after its last finished epoch, unless `fresh`. With `keep` the run is
    recorded in `results/local/`; without, its checkpoint stays until the caller has recorded it.
    Raises RecipeError, Interrupted on Ctrl-C, and DivergenceError if the loss is not finite.
    """
    started, smoke = time.perf_counter(), smoke_test_epochs()
    experiment = replace(experiment, epochs=smoke or experiment.epochs)
    tune_malloc()
    setup = prepare(experiment, seed, device)
    record = {"recipe": asdict(replace(experiment, precision=setup.precision)), "seed": seed}
    record |= {"fingerprint": store.fingerprint(setup.model), **environment(setup.device)}
    record["train_size"] = len(setup.train_loader.images)
    record["test_size"] = len(setup.test_loader.images)
    checkpoint = store.checkpoint_path(record, smoke)
    with contextlib.redirect_stdout(sys.stdout if progress else io.StringIO()):
        if smoke:
            print(f"Smoke test: {SMOKE_TEST_SIZE:,} images, and nothing is recorded.")
        history = [] if fresh else _resume(checkpoint, record, setup)
        before, failure = sum(epoch["seconds"] for epoch in history), None
        try:
            for epoch in fit(setup, range(len(history) + 1, experiment.epochs + 1)):
                history.append(epoch)
                state = {"setup": setup.state_dict(), "history": history}
                store.save_checkpoint(checkpoint, record, state)
        except KeyboardInterrupt:
            done = f"Interrupted after {len(history)} of {experiment.epochs} epochs"
            raise Interrupted(f"{done}. Run the same command, or cell, again to resume.") from None
        except DivergenceError as error:
            failure, error.record, record["failed"] = error, record, str(error)
    record |= {"history": history, "seconds": before + time.perf_counter() - started}
    if smoke or keep and _save(experiment, record, setup.tested):
        store.remove(checkpoint)
    if failure:
        raise failure
    return setup.tested.eval(), record


def prepare(experiment: Experiment, seed: int = 1, device: str | None = None) -> Setup:
    """What the recipe says, built: model, loaders, optimizer and so on.

    Raises RecipeError if a value of the recipe is wrong, ValueError if the seed or the device is.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"the seed must be a non-negative integer below 2**63, got {seed!r}")
    place = pick_device(device)
    precision = _build(experiment, "precision", pick_precision, place, experiment.precision)
    torch.backends.cudnn.deterministic = True  # the same seed gives the same history
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, also on Ampere and newer
    torch.manual_seed(seed)
    model_class = MODELS[_choose("model", experiment.model, MODELS)]
    model = _build(experiment, "model_args", model_class, **experiment.model_args).to(place)
    limit = SMOKE_TEST_SIZE if smoke_test_epochs() else None
    data, test_data = _build(experiment, "split", load_mnist, experiment.split, place, limit)
    augment = None
    if experiment.augmentation:
        augment = _build(experiment, "augmentation", RandomAffine, **experiment.augmentation)
    train_loader = Loader(
        *data,
        experiment.batch_size,
        generator=torch.Generator().manual_seed(seed),
        augment=augment,
        normalized=experiment.normalized,
    )
    test_loader = Loader(*test_data, normalized=experiment.normalized)
    optimizer = _make_optimizer(experiment, model)
    scheduler = _make_scheduler(experiment, optimizer, len(train_loader))
    averaged = moving_average(model, experiment.ema_decay) if experiment.ema_decay else None
    name = {"test": "Test set", "validation": "Validation split"}.get(experiment.split)
    name = name or experiment.split.capitalize()
    return Setup(
        place, precision, model, train_loader, test_loader, optimizer, scheduler, averaged, name
    )


def _make_optimizer(experiment: Experiment, model: nn.Module) -> torch.optim.Optimizer:
    name, arguments = experiment.optimizer, dict(experiment.optimizer_args)
    if name in FUSED and not {"foreach", "differentiable"} & arguments.keys():
        arguments.setdefault("fused", True)
    optimizer = getattr(torch.optim, _choose("optimizer", name, OPTIMIZERS))
    return _build(experiment, "optimizer_args", optimizer, model.parameters(), **arguments)


def _make_scheduler(
    experiment: Experiment, optimizer: torch.optim.Optimizer, batches: int
) -> lr_scheduler.LRScheduler | None:
    name, arguments = experiment.scheduler, dict(experiment.scheduler_args)
    if name is None:
        return None
    if name == "OneCycleLR":
        arguments.setdefault("max_lr", optimizer.param_groups[0]["lr"])
        arguments.setdefault("total_steps", experiment.epochs * batches)
    scheduler = getattr(lr_scheduler, _choose("scheduler", name, SCHEDULERS))
    return _build(experiment, "scheduler_args", scheduler, optimizer, **arguments)


def _choose(what: str, name: str, choices: Collection[str]) -> str:
    if name not in choices:
        raise RecipeError(f"unknown {what} {name!r}: choose one of {', '.join(choices)}")
    return name


def _build(experiment: Experiment, name: str, build: Callable, *args: Any, **arguments: Any) -> Any:
    """Call `build` with what a field of the recipe says; an error names the field and its value."""
    try:
        return build(*args, **arguments)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        value = getattr(experiment, name)
        raise RecipeError(f"{name}={value!r}: {str(error).splitlines()[0]}") from error


def smoke_test_epochs() -> int:
    """The epochs of a smoke test, if the environment variable MNIST_REDUCED asks for one, else 0.

    A smoke test trains on few images, and nothing is recorded.
    """
    text = os.environ.get("MNIST_REDUCED") or "0"
    if not text.isdecimal():
        raise ValueError(f"MNIST_REDUCED must be a number of epochs, or 0; got {text!r}")
    return int(text)


def _resume(checkpoint: Path, record: dict, setup: Setup) -> list[dict]:
    """Restore the state of an interrupted run; returns its history, empty if there is none."""
    saved = store.load_checkpoint(checkpoint, record)
    if saved is None:
        return []
    setup.load_state_dict(saved["setup"])
    print(f"Resuming an interrupted run after epoch {len(saved['history'])}.")
    return saved["history"]


def _save(experiment: Experiment, record: dict, model: nn.Module) -> bool:
    """Record a run, of an unchanged step with its weights; if this fails, say so, return False."""
    step = experiment.name if experiment == STEPS.get(experiment.name) else None
    try:
        if step and record["seed"] == 1 and "failed" not in record:
            store.save_state(model.state_dict(), store.weights_path(step, local=True))
        store.save_record("runs", record)
    except OSError as error:
        print(f"the run was not recorded ({error}): run it again to record it", file=sys.stderr)
        return False
    return True


def load_model(step: str = "augmentation", weights: Path | str | None = None) -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode.

    `weights` is the file of another state dict. Raises RuntimeError, in one line, if it does not
    hold one of this model.
    """
    experiment = STEPS[_choose("step", step, STEPS)]
    path = Path(weights or store.weights_path(step))
    model = MODELS[experiment.model](**experiment.model_args)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise RuntimeError(f"{path} does not exist: restore it with git checkout") from None
    except Exception as error:  # damaged, pickled code, or the state of another model
        kind = type(error).__name__
        raise RuntimeError(
            f"{path} does not hold the weights of {experiment.model} ({kind})"
        ) from error
    return model.eval()
