"""The experiments as data, and how one is run."""

import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torchvision
from joblib import Parallel, delayed
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import records
from .data import Loader, RandomAffine, load_mnist, reduced
from .models import MODELS
from .training import device_name, fit, pick_device, pick_precision


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
    precision: str = "auto"           # of forward and backward pass: "float32", "bfloat16", or whichever is faster


def prepare(experiment: Experiment, seed: int = 1, device: str | None = None) -> dict[str, Any]:
    """Everything that `fit` needs for this recipe but the number of epochs: model, device, loaders, optimizer and so on."""
    device = pick_device(device)
    precision = pick_precision(device, experiment.precision)
    torch.backends.cudnn.deterministic = True  # the same seed, the same history
    torch.manual_seed(seed)
    model = MODELS[experiment.model](**experiment.model_args).to(device)
    (images, labels), (test_images, test_labels) = load_mnist(experiment.split, device)
    train_loader = Loader(images, labels, experiment.batch_size, normalized=experiment.normalized,
                          generator=torch.Generator().manual_seed(seed),
                          augment=RandomAffine(**experiment.augmentation) if experiment.augmentation else None)
    test_loader = Loader(test_images, test_labels, normalized=experiment.normalized)
    make_optimizer = getattr(torch.optim, experiment.optimizer)
    fused = {"fused": True} if "fused" in signature(make_optimizer).parameters else {}  # one kernel for all parameters
    optimizer = make_optimizer(model.parameters(), **{**fused, **experiment.optimizer_args})
    scheduler = averaged = None
    if experiment.scheduler == "OneCycleLR":
        scheduler = OneCycleLR(optimizer, experiment.optimizer_args["lr"], total_steps=experiment.epochs * len(train_loader),
                               **experiment.scheduler_args)
    elif experiment.scheduler:
        scheduler = getattr(lr_scheduler, experiment.scheduler)(optimizer, **experiment.scheduler_args)
    if experiment.ema_decay is not None:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(experiment.ema_decay), use_buffers=True)
    return {"model": model, "device": device, "train_loader": train_loader, "test_loader": test_loader,
            "optimizer": optimizer, "scheduler": scheduler, "averaged": averaged, "precision": precision}


def run(experiment: Experiment, seed: int = 1, device: str | None = None, *, progress: bool = True,
        keep: bool = True) -> tuple[nn.Module, dict]:
    """Train one recipe with one seed; returns the trained model, in evaluation mode, and the record of the run.

    With `keep` the record goes to `results/runs.jsonl`, and the weights of a step, trained with seed 1, beside it. A reduced
    run (see `data.reduced`) has one epoch of few images and keeps nothing.
    """
    if reduced():
        experiment = replace(experiment, epochs=1)
    started = time.perf_counter()
    parts = prepare(experiment, seed, device)
    history = fit(**parts, epochs=experiment.epochs, progress=progress,
                  test_name="Test set" if experiment.split == "test" else "Validation split")
    record = {
        "version": 1, "recipe": asdict(experiment), "seed": seed, "history": history,
        "train_size": len(parts["train_loader"].images), "test_size": len(parts["test_loader"].images),
        "seconds": time.perf_counter() - started, **environment(parts["device"]),
        "precision": str(parts["precision"]).removeprefix("torch."),
    }
    model = (parts["averaged"].module if parts["averaged"] else parts["model"]).eval()
    if keep and not reduced():
        records.save("runs", record)
        if experiment == STEPS.get(experiment.name) and seed == 1:
            torch.save(model.state_dict(), weights_path(experiment.name))
    return model, record


def environment(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made."""
    return {"device": device.type, "device_name": device_name(device), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}


def weights_path(step: str) -> Path:
    """Where the weights of a step, trained with seed 1, are kept: a state dict."""
    return records.RESULTS / f"{step}.pt"


def load_model(step: str = "augmentation") -> nn.Module:
    """The trained model of a step, on the CPU and in evaluation mode."""
    experiment = STEPS[step]
    model = MODELS[experiment.model](**experiment.model_args)
    model.load_state_dict(torch.load(weights_path(step), map_location="cpu", weights_only=True))
    return model.eval()


BASIC = Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.002})
REGULARIZATION = Experiment("regularization", "RegularizedNet", model_args={"dropout": 0.0}, optimizer_args={"lr": 0.01},
                            scheduler="StepLR", scheduler_args={"step_size": 5, "gamma": 0.1})
AUGMENTATION = Experiment(
    "augmentation", "AugmentedNet",
    augmentation={"degrees": 10, "translate": (1 / 28, 1 / 28), "scale": (0.9, 1.1), "shear": 6, "interpolation": "nearest"},
    optimizer="SGD", optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
    scheduler="OneCycleLR", scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
    ema_decay=0.998)
STEPS = {step.name: step for step in (BASIC, REGULARIZATION, AUGMENTATION)}


@dataclass(frozen=True)
class Study:
    """A question, what is varied, the experiments under the labels that a reader sees, and seeds 1 to `seeds` of each."""

    question: str
    setting: str
    experiments: dict[str, Experiment]
    seeds: int = 3


def _vary(experiment: Experiment, **changes) -> Experiment:
    """The experiment on the validation split, with changes; those of a dict are merged into it."""
    merged = {name: {**getattr(experiment, name), **change} if isinstance(change, dict) else change
              for name, change in changes.items()}
    return replace(experiment, split="validation", **merged)


# A sweep changes one thing of a fixed recipe, and looks at the validation split alone.
REFERENCE = Experiment("reference", "RegularizedNet", model_args={"dropout": 0.0}, optimizer_args={"lr": 0.01},
                       scheduler="StepLR", scheduler_args={"step_size": 5, "gamma": 0.1}, split="validation")
AUGMENTED_REFERENCE = replace(AUGMENTATION, name="reference", batch_size=64, optimizer="AdamW",
                              optimizer_args={"lr": 0.02, "weight_decay": 0.01}, split="validation")
WITH_DROPOUT = _vary(REFERENCE, model_args={"dropout": 0.05})
STUDIES = {
    "dropout": Study("Which dropout is best in step 2?", "dropout (probability)", {
        f"{dropout:g}": _vary(REFERENCE, model_args={"dropout": dropout})
        for dropout in (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)}),
    "step_size": Study("Which step size of StepLR is best in step 2?", "step size of StepLR (epochs)", {
        f"{size}": _vary(REFERENCE, scheduler_args={"step_size": size}) for size in (3, 5, 7, 9)}),
    "parts": Study("What do batch normalisation, dropout and the scheduler each bring?", "recipe of step 2", {
        "all three": WITH_DROPOUT,
        "no batch norm": _vary(WITH_DROPOUT, model_args={"batch_norm": False}),
        "no dropout": REFERENCE,
        "no scheduler": replace(WITH_DROPOUT, scheduler=None, scheduler_args={}),
        "none": replace(_vary(REFERENCE, model_args={"batch_norm": False}), scheduler=None, scheduler_args={})}),
    "learning_rate_basic": Study("Which learning rate of Adam is best in step 1?", "learning rate of Adam, step 1", {
        f"{lr:g}": _vary(BASIC, optimizer_args={"lr": lr}) for lr in (0.002, 0.005, 0.01, 0.02, 0.05)}),
    "learning_rate_regularization": Study("Which learning rate of Adam is best in step 2?",
                                          "learning rate of Adam, step 2", {
        f"{lr:g}": _vary(REFERENCE, optimizer_args={"lr": lr}) for lr in (0.005, 0.01, 0.02, 0.05)}),
    "augmentation": Study("What do augmentation, its interpolation, averaging and the optimizer bring in step 3?",
                          "recipe of step 3", {
        "SGD (as run)": _vary(AUGMENTATION),
        "AdamW": AUGMENTED_REFERENCE,
        "AdamW, bilinear": _vary(AUGMENTED_REFERENCE, augmentation={"interpolation": "bilinear"}),
        "AdamW, bicubic": _vary(AUGMENTED_REFERENCE, augmentation={"interpolation": "bicubic"}),
        "AdamW, no augmentation": _vary(AUGMENTED_REFERENCE, augmentation=None),
        "AdamW, no averaging": _vary(AUGMENTED_REFERENCE, ema_decay=None)}),
}


def run_key(experiment: Experiment, seed: int) -> str:
    """The key under which `records` files the run of this recipe with this seed."""
    return records.key({"recipe": asdict(experiment), "seed": seed})


def recorded(file: str) -> dict[str, dict]:
    """The records of `results/<file>.jsonl` by `run_key`; a field that is younger than a record counts at its default."""
    return {run_key(Experiment(**record["recipe"]), record["seed"]): record for record in records.load(file).values()}


def missing(names: Iterable[str], seeds: int | None = None) -> list[tuple[Experiment, int]]:
    """The runs of the named studies that are not yet recorded; one that several studies share comes once."""
    wanted = {run_key(experiment, seed): (experiment, seed) for name in names
              for experiment in STUDIES[name].experiments.values() for seed in range(1, (seeds or STUDIES[name].seeds) + 1)}
    found = recorded("study")
    return [run for key, run in wanted.items() if key not in found]


def study_records(name: str) -> dict[str, list[dict]]:
    """The records of a study: for each label those of its seeds, in order.

    Raises RuntimeError where one is missing.
    """
    study, found = STUDIES[name], recorded("study")
    try:
        return {label: [found[run_key(experiment, seed)] for seed in range(1, study.seeds + 1)]
                for label, experiment in study.experiments.items()}
    except KeyError:
        raise RuntimeError(f"the study {name!r} is not complete: python -m src study {name} runs what is missing") from None


def run_studies(names: Iterable[str], seeds: int | None = None, jobs: int = -1, device: str | None = None) -> None:
    """Run what `missing` finds, `jobs` runs at a time, and save each record as its run finishes."""
    load_mnist()  # unpacked once, before the processes start
    todo = missing(names, seeds)
    made = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_record)(*one, device) for one in todo)
    for record in tqdm(made, total=len(todo), unit="run", smoothing=0):
        if not reduced():
            records.save("study", record)


def _record(experiment: Experiment, seed: int, device: str | None) -> dict:
    return run(experiment, seed, device, progress=False, keep=False)[1]
