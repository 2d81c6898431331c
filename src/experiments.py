"""A whole recipe as data, the three steps, and how a recipe is run."""

import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import records
from .checkpoints import Checkpoint, fingerprint, save_state
from .data import Loader, RandomAffine, load_mnist, smoke_test_epochs
from .models import MODELS
from .training import DivergenceError, fit, format_epoch, pick_device, pick_precision


@dataclass(frozen=True)
class Experiment:
    """A whole recipe; together with a seed, it makes a run bitwise reproducible on one machine.

    Each `…_args` is passed to the class named before it, from `models.MODELS`, `torch.optim` or `torch.optim.lr_scheduler`.
    """

    name: str
    model: str
    model_args: dict = field(default_factory=dict)
    normalized: bool = True  # images with zero mean and unit standard deviation; else in [0, 1]
    augmentation: dict | None = None  # arguments of data.RandomAffine; None: no augmentation
    epochs: int = 15
    batch_size: int = 128
    optimizer: str = "Adam"
    optimizer_args: dict = field(default_factory=dict)
    scheduler: str | None = (
        None  # for OneCycleLR, max_lr is the optimizer's lr and total_steps that of the run
    )
    scheduler_args: dict = field(default_factory=dict)
    ema_decay: float | None = (
        None  # per batch, of the moving average of weights and buffers; the average is tested
    )
    split: str = "test"  # to evaluate on: "test", or "validation" for selection
    precision: str = "auto"  # "float32", "bfloat16", or "auto": the faster one on the device

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, or None, got {self.ema_decay!r}")


BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.002})
REGULARIZATION = Experiment(
    "regularization",
    "RegularizedNet",
    model_args={"dropout": 0.0},
    optimizer_args={"lr": 0.01},
    scheduler="StepLR",
    scheduler_args={"step_size": 5, "gamma": 0.1},
)
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


OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and name != "LBFGS"
}
SCHEDULERS = {
    name: getattr(lr_scheduler, name)
    for name in lr_scheduler.__all__
    if name != "ReduceLROnPlateau"
}


def _choose(what: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(choices)}")
    return choices[name]


def prepare(experiment: Experiment, seed: int = 1, device: str | None = None) -> dict[str, Any]:
    """The arguments of `fit` for this recipe, except the number of epochs: model, device, loaders, optimizer and so on.

    Raises ValueError or TypeError, in one line, if the seed or a value of the recipe is invalid.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"the seed must be a non-negative integer below 2**63, got {seed!r}")
    device = pick_device(device)
    precision = pick_precision(device, experiment.precision)
    torch.backends.cudnn.deterministic = True  # the same seed gives the same history
    torch.backends.cudnn.allow_tf32 = (
        False  # float32 means float32 in convolutions, also on Ampere and newer
    )
    torch.manual_seed(seed)
    model = _choose("model", experiment.model, MODELS)(**experiment.model_args).to(device)
    (images, labels), (test_images, test_labels) = load_mnist(experiment.split, device)
    train_loader = Loader(
        images,
        labels,
        experiment.batch_size,
        normalized=experiment.normalized,
        generator=torch.Generator().manual_seed(seed),
        augment=RandomAffine(**experiment.augmentation) if experiment.augmentation else None,
    )
    test_loader = Loader(test_images, test_labels, normalized=experiment.normalized)
    optimizer_class = _choose("optimizer", experiment.optimizer, OPTIMIZERS)
    arguments = dict(experiment.optimizer_args)
    if (
        "fused" in signature(optimizer_class).parameters
        and not {"foreach", "differentiable"} & arguments.keys()
    ):
        arguments.setdefault("fused", True)  # one kernel for all parameters
    optimizer = optimizer_class(model.parameters(), **arguments)
    scheduler = averaged = None
    if experiment.scheduler == "OneCycleLR":
        whole_run = {
            "max_lr": optimizer.param_groups[0]["lr"],
            "total_steps": experiment.epochs * len(train_loader),
        }
        scheduler = lr_scheduler.OneCycleLR(optimizer, **{**whole_run, **experiment.scheduler_args})
    elif experiment.scheduler:
        scheduler = _choose("scheduler", experiment.scheduler, SCHEDULERS)(
            optimizer, **experiment.scheduler_args
        )
    if experiment.ema_decay is not None:
        averaged = AveragedModel(
            model, multi_avg_fn=moving_average(experiment.ema_decay), use_buffers=True
        )
    return {
        "model": model,
        "device": device,
        "train_loader": train_loader,
        "test_loader": test_loader,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "averaged": averaged,
        "precision": precision,
    }


def moving_average(decay: float):
    """The exponential moving average for `AveragedModel`, with a warm-up: after n batches, decay min(decay, (1 + n) / (10 + n)).

    The warm-up, that of TensorFlow's ExponentialMovingAverage, soon forgets the first weights, which are random.
    """

    def update(averages: list[torch.Tensor], values: list[torch.Tensor], n: torch.Tensor) -> None:
        count = int(n)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averages, values, n)

    return update


class Interrupted(KeyboardInterrupt):
    """A run was interrupted by the user; the message says how to resume it."""

    def _render_traceback_(self) -> list[str]:  # Jupyter shows the message alone
        return [str(self)]


def run(
    experiment: Experiment,
    seed: int = 1,
    device: str | None = None,
    *,
    progress: bool = True,
    keep: bool = True,
    fresh: bool = False,
) -> tuple[nn.Module, dict]:
    """Train one recipe with one seed; returns the trained model, in evaluation mode, and the record of the run.

    An interrupted run resumes after its last finished epoch, unless `fresh`. With `keep`, an unchanged step with seed 1 is recorded
    in `results/runs.jsonl`, with its weights beside it; any other run in `results/local.jsonl`, which git ignores. A smoke test
    (see `data.smoke_test_epochs`) uses few images and saves nothing. Without `keep` nothing is recorded, and the checkpoint stays
    until the caller has recorded the run.

    Raises DivergenceError when the loss is not finite, after recording the run as failed, and Interrupted on Ctrl-C.
    """
    if smoke_test_epochs():
        experiment = replace(experiment, epochs=smoke_test_epochs())
    started = time.perf_counter()
    parts = prepare(experiment, seed, device)
    record = {
        "recipe": asdict(replace(experiment, precision=parts["precision"])),
        "seed": seed,
        "fingerprint": fingerprint(parts["model"]),
        **environment(parts["device"]),
        "train_size": len(parts["train_loader"].images),
        "test_size": len(parts["test_loader"].images),
    }
    checkpoint = Checkpoint(record, parts)
    if fresh:
        checkpoint.remove()
    history = checkpoint.load()
    seconds_before = sum(epoch["seconds"] for epoch in history)
    test_name = "Test set" if experiment.split == "test" else "Validation split"
    if progress and history:
        print(f"Resuming an interrupted run after epoch {len(history)}.")
        for epoch in history:
            print(format_epoch(epoch, len(parts["train_loader"]), record["test_size"], test_name))
    failure = None
    try:
        fit(
            **parts,
            epochs=experiment.epochs,
            progress=progress,
            test_name=test_name,
            history=history,
            after_epoch=checkpoint.save,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {len(history)} of {experiment.epochs} epochs. Run the same command, or cell, again "
            "to resume."
        ) from None
    except DivergenceError as error:
        failure, record["failed"] = error, str(error)
    record |= {"history": history, "seconds": seconds_before + time.perf_counter() - started}
    model = (parts["averaged"].module if parts["averaged"] else parts["model"]).eval()
    if smoke_test_epochs() or keep and _save(experiment, seed, record, model):
        checkpoint.remove()
    if failure:
        failure.record = record
        raise failure
    return model, record


def _save(experiment: Experiment, seed: int, record: dict, model: nn.Module) -> bool:
    """Write the record, and the weights of an unchanged step with seed 1; if this fails, report it and return False."""
    is_step = experiment == STEPS.get(experiment.name) and seed == 1 and "failed" not in record
    try:
        if is_step:
            save_state(model.state_dict(), weights_path(experiment.name))
        records.save_record("runs" if is_step else "local", record)
    except OSError as error:
        print(f"the run was not recorded ({error}): run it again to record it", file=sys.stderr)
        return False
    return True


def environment(device: torch.device) -> dict:
    """Where a run is made: device, threads and versions."""
    cpu = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest supported PyTorch
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else cpu.get("cpu_name", platform.machine())
    )
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
    }


def weights_path(step: str) -> Path:
    """The file with the trained weights of a step (seed 1): a state dict."""
    return records.RESULTS / f"{step}.pt"


def load_model(step: str = "augmentation", weights: Path | str | None = None) -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode.

    `weights` is the file of another state dict. Raises RuntimeError, in one line, if it does not hold one of this model.
    """
    experiment, path = _choose("step", step, STEPS), Path(weights or weights_path(step))
    model = MODELS[experiment.model](**experiment.model_args)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise RuntimeError(
            f"{path} does not exist: create it with python -m src train {step}"
        ) from None
    except Exception as error:  # damaged, pickled code, or the state of another model
        raise RuntimeError(
            f"{path} does not hold the weights of {experiment.model} ({type(error).__name__})"
        ) from error
    return model.eval()
