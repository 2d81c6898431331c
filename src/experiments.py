"""A whole recipe as data, the three steps of the series, and `run`, which trains one.

Read `Experiment` and the three steps first, then `run` from top to bottom, then `prepare`.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from frozendict import deepfreeze
from torch import nn
from torch.optim import lr_scheduler

from . import store
from .data import Loader, RandomAffine, load_mnist
from .device import environment, pick_device, pick_precision, tune_malloc
from .models import MODELS
from .training import DivergenceError, Setup, fit, moving_average

TARGET = 99.4  # % accuracy: a run is consistent if each of its last five epochs reaches it
SMOKE_TEST_SIZE = 2_000  # images to train on, and to test on; nothing is recorded
_OPTIMIZERS = "SGD Adam AdamW NAdam RAdam Adamax RMSprop Adagrad Adadelta Rprop"
_SCHEDULERS = (
    "StepLR MultiStepLR ExponentialLR PolynomialLR LinearLR ConstantLR CosineAnnealingLR "
    "CosineAnnealingWarmRestarts OneCycleLR CyclicLR"
)
OPTIMIZERS = {name: getattr(torch.optim, name) for name in _OPTIMIZERS.split()}
FUSED = {"SGD", "Adam", "AdamW"}  # have a fused implementation
SCHEDULERS = {name: getattr(lr_scheduler, name) for name in _SCHEDULERS.split()}


class RecipeError(ValueError):
    """A value of a recipe is wrong; the message, one line, names the field and the value."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message alone
        return [f"{type(self).__name__}: {self}"]


class Interrupted(KeyboardInterrupt):
    """The user interrupted a run; the message says how to resume it."""

    _render_traceback_ = RecipeError._render_traceback_


@dataclass(frozen=True)
class Experiment:
    """A whole recipe. With a seed, a run is reproducible bit for bit on one machine.

    Each `…_args` is passed to the class named before it; `MODELS`, `OPTIMIZERS` and `SCHEDULERS`
    hold the names. Raises RecipeError for an invalid value.
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
                json.dumps(value)  # as the record will hold it
            except TypeError as error:
                raise RecipeError(f"{name}={value!r}: {error}") from None
            object.__setattr__(self, name, deepfreeze(value))
        if self.split == "fold 6":
            object.__setattr__(self, "split", "validation")
        counts = {"epochs": self.epochs, "batch_size": self.batch_size}
        if not all(type(count) is int and count > 0 for count in counts.values()):
            raise RecipeError(f"epochs and batch_size must be positive integers, got {counts}")
        if not isinstance(self.normalized, bool):
            raise RecipeError(f"normalized must be True or False, got {self.normalized!r}")
        decay = 0.5 if self.ema_decay is None else self.ema_decay
        if not isinstance(decay, float) or not 0 < decay < 1:
            raise RecipeError(f"ema_decay must be None or in (0, 1), got {self.ema_decay!r}")


# 98.66 ± 0.28 % of the test images after the last epoch, 0 of 10 seeds consistent
BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.005})
# 99.46 ± 0.04 %, 0 of 10 seeds consistent
REGULARIZATION = Experiment(
    "regularization",
    "RegularizedNet",
    model_args={"dropout": 0.0},
    optimizer="SGD",
    optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
    scheduler="OneCycleLR",
    scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
)
# 99.55 ± 0.05 %, 99 of 100 seeds consistent
AUGMENTATION = replace(
    REGULARIZATION,  # with the same optimizer and scheduler
    name="augmentation",
    model="AugmentedNet",
    model_args={},
    augmentation={
        "degrees": 10,
        "translate": (1 / 28, 1 / 28),
        "scale": (0.9, 1.1),
        "shear": 6,
        "interpolation": "nearest",
    },
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
        history = [] if fresh else store.load_checkpoint(checkpoint, record, setup)
        before, failure = sum(epoch["seconds"] for epoch in history), None
        try:
            for epoch in fit(setup, range(len(history) + 1, experiment.epochs + 1)):
                history.append(epoch)
                store.save_checkpoint(checkpoint, record, setup, history)
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
    model = _build_named(experiment, "model", MODELS).to(place)
    limit = SMOKE_TEST_SIZE if smoke_test_epochs() else None
    data, test_data = _build(experiment, "split", load_mnist, experiment.split, place, limit)
    augment, shuffle = experiment.augmentation, torch.Generator().manual_seed(seed)
    if augment:
        augment = _build(experiment, "augmentation", RandomAffine, **augment)
    normalized = experiment.normalized
    train_loader = Loader(*data, experiment.batch_size, shuffle, augment, normalized)
    test_loader = Loader(*test_data, normalized=normalized)
    defaults = {"fused": True} if experiment.optimizer in FUSED else {}
    optimizer = _build_named(experiment, "optimizer", OPTIMIZERS, model.parameters(), **defaults)
    scheduler, defaults = None, {}
    if experiment.scheduler == "OneCycleLR":
        steps = experiment.epochs * len(train_loader)
        defaults = {"max_lr": optimizer.param_groups[0]["lr"], "total_steps": steps}
    if experiment.scheduler:
        scheduler = _build_named(experiment, "scheduler", SCHEDULERS, optimizer, **defaults)
    averaged = moving_average(model, experiment.ema_decay) if experiment.ema_decay else None
    name = "Test set" if experiment.split == "test" else experiment.split.capitalize()
    return Setup(
        place, precision, model, train_loader, test_loader, optimizer, scheduler, averaged, name
    )


def _build_named(experiment, kind, classes, /, *args, **defaults):
    """Make the model, optimizer or scheduler that a recipe names, with its arguments."""
    name, arguments = getattr(experiment, kind), getattr(experiment, f"{kind}_args")
    if name not in classes:
        raise RecipeError(f"unknown {kind} {name!r}: choose one of {', '.join(classes)}")
    return _build(experiment, f"{kind}_args", classes[name], *args, **defaults | arguments)


def _build(experiment, name, build, /, *args, **arguments):
    """Call `build` with what a field of the recipe says; an error names the field and its value."""
    try:
        return build(*args, **arguments)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        value = getattr(experiment, name)
        value = dict(value) if isinstance(value, Mapping) else value
        raise RecipeError(f"{name}={value!r}: {str(error).splitlines()[0]}") from error


def smoke_test_epochs() -> int:
    """The epochs of a smoke test: the environment variable MNIST_REDUCED; 0 if it is unset."""
    text = os.environ.get("MNIST_REDUCED") or "0"
    if not text.isdecimal():
        raise ValueError(f"MNIST_REDUCED must be a number of epochs, or 0; got {text!r}")
    return int(text)


def _save(experiment: Experiment, record: dict, model: nn.Module) -> bool:
    """Record a run, of an unchanged step with its weights; if this fails, say so, return False."""
    step = experiment.name if experiment == STEPS.get(experiment.name) else None
    try:
        if step and record["seed"] == 1 and "failed" not in record:
            store.save_state(model.state_dict(), store.results_path(f"{step}.pt", local=True))
        store.save_records("runs", [record])
    except OSError as error:
        print(f"the run was not recorded ({error}): run it again to record it", file=sys.stderr)
        return False
    return True


def load_model(step: str = "augmentation", weights: Path | str | None = None) -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode.

    `weights` is the file of another state dict. Raises RuntimeError if it cannot be loaded.
    """
    if step not in STEPS:
        raise ValueError(f"unknown step {step!r}: choose one of {', '.join(STEPS)}")
    path = Path(weights or store.results_path(f"{step}.pt"))
    model = MODELS[STEPS[step].model](**STEPS[step].model_args)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # missing, damaged, pickled code, or the state of another model
        fault = f"cannot be loaded as weights of {STEPS[step].model} ({type(error).__name__})"
        advice = "" if weights else ": restore it with git checkout"
        raise RuntimeError(f"{path} {fault}{advice}") from error
    return model.eval()
