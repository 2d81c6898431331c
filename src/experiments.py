"""The three steps of the series, and `run`, which trains a recipe.

Read the three steps first, then `run` from top to bottom, then `prepare`.
"""

import io
import operator
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from . import store
from .data import Loader, load_mnist
from .device import configure, pick_device, pick_memory_format
from .errors import FileError, InputError, OneLineError
from .provenance import environment, hash_source
from .recipes import Experiment, build_augmentation, build_model, build_optimizer, build_scheduler
from .training import DivergenceError, MovingAverage, Setup, fit, format_summary, predict

TARGET = 99.4  # % accuracy: a run is consistent if each of its last five epochs reaches it

# 98.86 ± 0.10 % of the test images after the last epoch, 0 of 10 seeds consistent
BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.005})
# 99.43 ± 0.05 %, 14 of 30 seeds consistent
REGULARIZATION = Experiment(
    "regularization",
    "RegularizedNet",
    model_args={"dropout": 0.0},
    optimizer="SGD",
    optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 8e-4},
    scheduler="OneCycleLR",
    scheduler_args={
        "three_phase": True,  # with a long end at a low rate, for steady last epochs
        "pct_start": 0.3,
        "anneal_strategy": "linear",
        "cycle_momentum": False,
    },
)
# 99.56 ± 0.04 %, 100 of 100 seeds consistent
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
    optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-5},
    scheduler="OneCycleLR",
    scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
    ema_decay=0.998,
)
STEPS = {step.name: step for step in (BASIC, REGULARIZATION, AUGMENTATION)}


class Interrupted(OneLineError, KeyboardInterrupt):
    """The user interrupted a run; the message says how to resume it."""


def run(
    experiment: Experiment,
    seed: int = 1,
    device: str | None = None,
    *,
    verbose: bool = True,
    fresh: bool = False,
    file: str | None = "runs",
) -> tuple[nn.Module, dict]:
    """Train one recipe with one seed; returns the trained model and the record of the run.

    `device` is a name for `pick_device`. Unless `verbose`, nothing is printed on standard output.
    An interrupted run resumes after its last finished epoch, unless `fresh`. The record is appended
    to `<file>.jsonl` in `store.OUTPUT`, or nowhere if `file` is None; beside `runs.jsonl`, the
    weights of an unchanged step with seed 1 are saved, too. If MNIST_REDUCED is set, the run is
    shortened, as `find_reduction` says, and nothing is recorded.

    Raises Interrupted on Ctrl-C during training, DivergenceError if the loss is not finite,
    InputError if the seed, the device or MNIST_REDUCED is wrong, FileError if an archive of MNIST
    is missing or damaged.
    """
    started = time.perf_counter()
    seed = _check_seed(seed)
    reduction = find_reduction()
    if reduction and reduction.epochs:
        experiment = replace(experiment, epochs=reduction.epochs)
    setup = prepare(experiment, seed, device, reduction.images if reduction else None)
    record = _describe(experiment, seed, setup)
    checkpoint = store.Checkpoint(record, _conditions(record, setup))
    failure = None
    output = nullcontext() if verbose else redirect_stdout(io.StringIO())
    with output:
        if reduction:
            print(f"{reduction.name}: {reduction.images:,} images, and nothing is recorded.")
        if fresh:
            checkpoint.remove()
        history = [] if fresh else _resume(checkpoint, setup)
        earlier_seconds = sum(epoch["seconds"] for epoch in history)
        try:
            _train(setup, history, experiment.epochs, checkpoint, fresh)
            record["errors"] = _find_errors(setup)
        except DivergenceError as error:
            failure = error
            record["failed"] = str(error)
    record |= {
        "history": history,
        "seconds": earlier_seconds + time.perf_counter() - started,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    recorded = True
    if file is not None and not reduction:
        recorded = _save(file, record, setup.tested_model)
    if recorded:
        checkpoint.remove()
    if failure:
        failure.record = record
        raise failure
    return setup.tested_model.eval(), record


def prepare(
    experiment: Experiment, seed: int = 1, device: str | None = None, limit: int | None = None
) -> Setup:
    """Build what a recipe describes: model, loaders, optimizer and so on.

    `limit` keeps only the first images of each set. Sets PyTorch's global seed, and with
    `configure` the settings of the whole process. Raises InputError if the seed or the device is
    wrong, FileError if an archive of MNIST is missing or damaged.
    """
    seed = _check_seed(seed)
    torch_device = pick_device(device)
    configure()
    torch.manual_seed(seed)
    model = build_model(experiment)
    model.to(torch_device, memory_format=pick_memory_format(model, torch_device))
    data, test_data = load_mnist(experiment.split, torch_device, limit)
    shuffle = torch.Generator().manual_seed(seed)
    augment = build_augmentation(experiment)
    train_loader = Loader(*data, experiment.batch_size, shuffle, augment, experiment.normalized)
    test_loader = Loader(*test_data, normalized=experiment.normalized)
    optimizer = build_optimizer(experiment, model.parameters())
    steps = experiment.epochs * len(train_loader)
    scheduler = build_scheduler(experiment, optimizer, steps)
    average = MovingAverage(model, experiment.ema_decay) if experiment.ema_decay else None
    test_name = "Test set" if experiment.split == "test" else experiment.split.capitalize()
    return Setup(
        torch_device,
        model,
        train_loader,
        test_loader,
        optimizer,
        scheduler,
        average,
        test_name,
    )


def _check_seed(seed: object) -> int:
    """The seed as an int; any kind of integer, such as NumPy's, is accepted."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise InputError(f"the seed must be a non-negative integer below 2**63, got {seed!r}")
    return number


class Reduction(NamedTuple):
    """How runs are shortened. Nothing that is shortened is recorded."""

    name: str
    images: int  # to train on, and to test on
    epochs: int | None = None  # None: those of the recipe


def find_reduction() -> Reduction | None:
    """What the environment variable MNIST_REDUCED asks for; None if it is unset, or 0.

    A number of epochs is a smoke test; "classroom" is a whole run on fewer images, which soon shows
    what the parts of a recipe do. Raises InputError for anything else.
    """
    text = os.environ.get("MNIST_REDUCED") or "0"
    if text == "classroom":
        return Reduction("Classroom run", images=8_000)
    if not text.isdecimal():
        rule = "must be a number of epochs, 'classroom', or 0"
        raise InputError(f"MNIST_REDUCED {rule}; got {text!r}")
    if int(text) == 0:
        return None
    return Reduction("Smoke test", images=2_000, epochs=int(text))


def _describe(experiment: Experiment, seed: int, setup: Setup) -> dict:
    """The record of a run as far as it is known before the first epoch."""
    return {
        "recipe": asdict(experiment),
        "seed": seed,
        **environment(setup.device),
        "train_size": len(setup.train_loader.images),
        "test_size": len(setup.test_loader.images),
    }


def _conditions(record: dict, setup: Setup) -> dict:
    """What must be the same when a run is resumed, besides its recipe and its seed."""
    return {
        "source": hash_source(setup.model),
        "torch": record["torch"],
        "device_name": record["device_name"],
        "threads": record["threads"] if setup.device.type == "cpu" else None,
    }


def _resume(checkpoint: store.Checkpoint, setup: Setup) -> list[dict]:
    """Restore an interrupted run, if there is one; returns its history."""
    state, history = checkpoint.load()
    if state:
        setup.load_state_dict(state)
        print(f"Resuming an interrupted run after epoch {len(history)}.")
    return history


def _train(
    setup: Setup, history: list[dict], epochs: int, checkpoint: store.Checkpoint, fresh: bool
) -> None:
    """Train until the history has `epochs` epochs; a checkpoint is saved after each."""
    try:
        for epoch in fit(setup, range(len(history) + 1, epochs + 1)):
            checkpoint.save(setup.state_dict(), [*history, epoch])
            history.append(epoch)  # afterwards: an interrupt counts the epochs that are saved
    except KeyboardInterrupt:
        again = "again without 'fresh'" if fresh else "again"
        raise Interrupted(
            f"Interrupted after {len(history)} of {epochs} epochs. "
            f"Run the same command, or cell, {again} to resume."
        ) from None
    print(format_summary(history))


def _find_errors(setup: Setup) -> list[list[int]]:
    """The images that the trained model misclassifies: index and prediction of each."""
    predictions, _ = predict(setup.tested_model, setup.device, setup.test_loader)
    wrong = (predictions != setup.test_loader.labels.cpu()).nonzero().flatten()
    return torch.stack([wrong, predictions[wrong]], dim=1).tolist()


def _save(file: str, record: dict, model: nn.Module) -> bool:
    """Append the record and, for an unchanged step, save its weights.

    If this fails, print why and return False.
    """
    step = _find_step(record) if file == "runs" else None
    try:
        if step:
            path = store.OUTPUT / f"{step}.pt"
            store.save_state(model.state_dict(), path)
            record["weights"] = store.digest(path.read_bytes())
        store.append_records(store.OUTPUT / f"{file}.jsonl", [record])
    except OSError as error:
        print(f"the run was not recorded ({error}): run it again to record it", file=sys.stderr)
        return False
    return True


def _find_step(record: dict) -> str | None:
    """The step whose present recipe this record has, under any name, with seed 1; None if none."""
    if "failed" in record:
        return None
    key = store.run_key(record["recipe"], record["seed"])
    for step, experiment in STEPS.items():
        if key == store.run_key(asdict(experiment), 1):
            return step
    return None


def load_step_records(folder: Path, step: str) -> list[dict]:
    """The records in a folder of a step's present recipe with seed 1, the newest last."""
    records = store.load_records(folder / "runs.jsonl").values()
    return [record for record in records if _find_step(record) == step]


def load_model(step: str = "augmentation", weights: Path | str | None = None) -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode.

    `weights` is the file of a state dict: by default that of your own run of the step's present
    recipe with seed 1, if there is one, else that of the evidence. Raises InputError for an
    unknown step, FileError if the weights cannot be loaded.
    """
    if step not in STEPS:
        raise InputError(f"unknown step {step!r}: choose one of {', '.join(STEPS)}")
    path = Path(weights or _find_weights(step))
    model = build_model(STEPS[step])
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # missing, damaged, pickled code, or the state of another model
        fault = f"cannot be loaded as weights of {STEPS[step].model} ({type(error).__name__})"
        advice = ": restore it with git checkout" if path.parent == store.EVIDENCE else ""
        raise FileError(f"{path} {fault}{advice}") from error
    return model.eval()


def _find_weights(step: str) -> Path:
    """The file of your own weights of a step, if there is one, else that of the evidence."""
    own = store.OUTPUT / f"{step}.pt"
    records = load_step_records(store.OUTPUT, step)
    if not records or not own.exists():
        return store.EVIDENCE / f"{step}.pt"
    if not holds_weights(own, records[-1]):
        advice = "run it again, or delete the file to use the weights of the evidence"
        raise FileError(f"{own} does not hold the weights of your last run of {step}: {advice}")
    return own


def holds_weights(path: Path, record: Mapping) -> bool:
    """Whether a file holds the weights of a recorded run.

    Every run of a step with seed 1 overwrites its file. Older records do not name their weights:
    they are trusted.
    """
    return path.exists() and record.get("weights") in (None, store.digest(path.read_bytes()))
