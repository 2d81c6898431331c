"""A recipe as data, the three steps, and how one is run."""

import hashlib
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import records
from .channels_last import channels_last
from .checkpoints import Checkpoint, save_state
from .data import Loader, RandomAffine, load_mnist, reduced
from .device import device_name, pick_device, pick_precision
from .models import MODELS
from .training import DivergenceError, epoch_text, fit


@dataclass(frozen=True)
class Experiment:
    """A whole recipe: with a seed it decides, on one machine, how a run comes out to the last bit.

    The `…_args` are the keyword arguments of the class beside them: a model of `models.MODELS`, an optimizer of
    `torch.optim`, a scheduler of `torch.optim.lr_scheduler` that steps by itself, `data.RandomAffine`.
    """

    name: str
    model: str
    model_args: dict = field(default_factory=dict)
    normalized: bool = True           # images to zero mean and unit standard deviation; else in [0, 1]
    augmentation: dict | None = None  # arguments of RandomAffine; None trains on the images as they are
    epochs: int = 15
    batch_size: int = 128
    optimizer: str = "Adam"
    optimizer_args: dict = field(default_factory=dict)
    scheduler: str | None = None      # OneCycleLR peaks at the optimizer's lr; its total_steps is that of the run
    scheduler_args: dict = field(default_factory=dict)
    ema_decay: float | None = None    # per batch; tests the exponential moving average of weights and buffers
    split: str = "test"               # evaluate on the test set, or, to select, on the validation split
    channels_last: bool = False       # where bfloat16 on the CPU: train with the kernels of channels_last.py
    precision: str = "auto"           # of forward and backward pass: "float32", "bfloat16", or whichever is faster

    def __new__(cls, *values, **fields):
        _check("field of a recipe", fields, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self):
        """Raises ValueError, in one line, for what can be told to be wrong without data and device."""
        _check("model", [self.model], MODELS)
        _check(f"argument of {self.model}", self.model_args, signature(MODELS[self.model]).parameters)
        _check("argument of RandomAffine", self.augmentation or {}, signature(RandomAffine).parameters)
        for what, module, name, arguments in (("optimizer", torch.optim, self.optimizer, self.optimizer_args),
                                              ("scheduler", lr_scheduler, self.scheduler, self.scheduler_args)):
            if name:
                known = {name: value for name, value in vars(module).items() if isinstance(value, type)}
                _check(what, [name], known)
                _check(f"argument of {name}", arguments, signature(known[name]).parameters)
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}: it is a whole number of at least 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay!r}: it lies between 0 and 1, or is None")


def _check(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1, cutoff=0.4)
            raise ValueError(f"unknown {what}: {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def prepare(experiment: Experiment, seed: int = 1, device: str | None = None) -> dict[str, Any]:
    """Everything that `fit` needs for this recipe but the number of epochs: model, device, loaders, optimizer and so on.

    Raises ValueError, in one line, where a value of the recipe, or the seed, is out of range.
    """
    if type(seed) is not int or seed < 0:
        raise ValueError(f"the seed is {seed!r}: it is a whole number of at least 0")
    device = pick_device(device)
    precision = pick_precision(device, experiment.precision)
    torch.backends.cudnn.deterministic = True  # the same seed, the same history
    torch.manual_seed(seed)
    model = MODELS[experiment.model](**experiment.model_args).to(device)
    (images, labels), (test_images, test_labels) = load_mnist(experiment.split, device)
    if experiment.batch_size > len(images):
        raise ValueError(f"batch_size is {experiment.batch_size}: there are {len(images)} training images")
    train_loader = Loader(images, labels, experiment.batch_size, normalized=experiment.normalized,
                          generator=torch.Generator().manual_seed(seed),
                          augment=RandomAffine(**experiment.augmentation) if experiment.augmentation else None)
    test_loader = Loader(test_images, test_labels, normalized=experiment.normalized)
    make_optimizer = getattr(torch.optim, experiment.optimizer)
    fused = {"fused": True} if "fused" in signature(make_optimizer).parameters else {}  # one kernel for all parameters
    optimizer = make_optimizer(model.parameters(), **{**fused, **experiment.optimizer_args})
    scheduler = averaged = None
    if experiment.scheduler == "OneCycleLR":
        whole = {"max_lr": optimizer.param_groups[0]["lr"], "total_steps": experiment.epochs * len(train_loader)}
        scheduler = OneCycleLR(optimizer, **{**whole, **experiment.scheduler_args})
    elif experiment.scheduler:
        scheduler = getattr(lr_scheduler, experiment.scheduler)(optimizer, **experiment.scheduler_args)
    if experiment.ema_decay is not None:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(experiment.ema_decay), use_buffers=True)
    forward = None
    if experiment.channels_last and device.type == "cpu" and precision == torch.bfloat16:
        forward = channels_last(model)
    return {"model": model, "device": device, "train_loader": train_loader, "test_loader": test_loader,
            "optimizer": optimizer, "scheduler": scheduler, "averaged": averaged, "forward": forward,
            "precision": precision}


class Interrupted(KeyboardInterrupt):
    """A run was stopped by hand; the message says how it goes on."""

    def _render_traceback_(self) -> list[str]:  # what Jupyter shows: the message alone
        return [str(self)]


def run(experiment: Experiment, seed: int = 1, device: str | None = None, *, progress: bool = True, keep: bool = True,
        fresh: bool = False) -> tuple[nn.Module, dict]:
    """Train one recipe with one seed; returns the trained model, in evaluation mode, and the record of the run.

    A run that was interrupted goes on after its last finished epoch, unless it shall start `fresh`. With `keep` the
    record goes to `results/runs.jsonl`, and the weights of a step, trained with seed 1, beside it. A reduced run (see
    `data.reduced`) has few images, as many epochs as it is asked for, and keeps nothing.

    Raises DivergenceError as soon as the loss is not finite, which is recorded as failed, and Interrupted where it is
    stopped by hand.
    """
    if reduced():
        experiment = replace(experiment, epochs=reduced())
    started = time.perf_counter()
    parts = prepare(experiment, seed, device)
    state = {name: parts[name] for name in ("model", "averaged", "optimizer", "scheduler") if parts[name]}
    checkpoint = Checkpoint(checkpoint_path(experiment, seed), parts["train_loader"].generator, state)
    if fresh:
        checkpoint.remove()
    history = checkpoint.load()
    spent = sum(epoch["seconds"] for epoch in history)
    train_size, test_size = len(parts["train_loader"].images), len(parts["test_loader"].images)
    test_name = "Test set" if experiment.split == "test" else "Validation split"
    if progress and history:
        print(f"Going on after epoch {len(history)} of a run that was interrupted.")
        for epoch in history:
            print(epoch_text(epoch, len(parts["train_loader"]), test_size, test_name))
    diverged = None
    try:
        fit(**parts, epochs=experiment.epochs, progress=progress, test_name=test_name, history=history,
            after_epoch=checkpoint.save)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted after {len(history)} of {experiment.epochs} epochs. The same command, or cell, goes on "
                          "from there.") from None
    except DivergenceError as error:
        diverged = error
    record = {
        "version": records.VERSION, "recipe": asdict(experiment), "seed": seed, "history": history,
        "train_size": train_size, "test_size": test_size,
        "seconds": spent + time.perf_counter() - started, **environment(parts["device"]),
        "precision": str(parts["precision"]).removeprefix("torch."), "channels_last": parts["forward"] is not None,
        **({"failed": str(diverged)} if diverged else {}),
    }
    model = (parts["averaged"].module if parts["averaged"] else parts["model"]).eval()
    if keep and not reduced():
        try:
            records.save("runs", record)
            if experiment == STEPS.get(experiment.name) and seed == 1 and not diverged:
                save_state(model.state_dict(), weights_path(experiment.name))
        except OSError as error:
            print(f"The run cannot be recorded ({error}).", file=sys.stderr)
    if keep or reduced():
        checkpoint.remove()
    if diverged:
        diverged.record = record
        raise diverged
    return model, record


def checkpoint_path(experiment: Experiment, seed: int) -> Path:
    """Where the checkpoint of this run is kept until the run is recorded."""
    digest = hashlib.sha256(f"{run_key(experiment, seed)} {reduced()}".encode()).hexdigest()[:16]
    return records.RESULTS / ".checkpoints" / f"{experiment.name}-{seed}-{digest}.pt"


def environment(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made."""
    return {"device": device.type, "device_name": device_name(device), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}


def weights_path(step: str) -> Path:
    """Where the weights of a step, trained with seed 1, are kept: a state dict."""
    return records.RESULTS / f"{step}.pt"


def load_model(step: str = "augmentation", weights: Path | str | None = None) -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode.

    `weights` is the file of another state dict. Raises RuntimeError, in one line, where it holds none, or one of another model.
    """
    _check("step", [step], STEPS)
    experiment, path = STEPS[step], Path(weights or weights_path(step))
    model = MODELS[experiment.model](**experiment.model_args)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise RuntimeError(f"there are no weights in {path}: python -m src train {step} makes them") from None
    except Exception as error:  # damaged, pickled code, or the state of another model
        raise RuntimeError(f"{path} does not hold the weights of {experiment.model} ({type(error).__name__})") from error
    return model.eval()


BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.002})
REGULARIZATION = Experiment("regularization", "RegularizedNet", model_args={"dropout": 0.0}, optimizer_args={"lr": 0.01},
                            scheduler="StepLR", scheduler_args={"step_size": 5, "gamma": 0.1})
AUGMENTATION = Experiment(
    "augmentation", "AugmentedNet",
    augmentation={"degrees": 10, "translate": (1 / 28, 1 / 28), "scale": (0.9, 1.1), "shear": 6, "interpolation": "nearest"},
    optimizer="SGD", optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
    scheduler="OneCycleLR", scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
    ema_decay=0.998, channels_last=True)
STEPS = {step.name: step for step in (BASIC, REGULARIZATION, AUGMENTATION)}


def run_key(experiment: Experiment, seed: int) -> str:
    """The key under which `records` files the run of this recipe with this seed."""
    return records.key({"recipe": asdict(experiment), "seed": seed})


def recorded(file: str) -> dict[str, dict]:
    """The records of `results/<file>.jsonl` by `run_key`; a field that is younger than a record counts at its default."""
    found = {}
    for record in records.load(file).values():
        try:
            found[run_key(Experiment(**record["recipe"]), record["seed"])] = record
        except (TypeError, ValueError) as error:
            print(f"{file}.jsonl: a record is left out ({error})", file=sys.stderr)
    return found
