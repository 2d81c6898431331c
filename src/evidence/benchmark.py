"""The benchmark: this package against the usual pipelines, side by side.

Each measurement is one epoch, training and testing, in a new process, after a warm-up of a few batches. Each round runs every
variant, so that a drift of the machine's speed affects all alike; ratios are taken within a round.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from tqdm import tqdm

from .. import records, training
from ..data import MEAN, STD, Loader, data_root, read_mnist, smoke_test_epochs
from ..experiments import STEPS, Experiment, environment, prepare

RECORD = records.RESULTS / "bench.json"


@dataclass(frozen=True)
class Variant:
    """A way to train and test for an epoch; the defaults are those of this package."""

    workers: int | None = None  # of a DataLoader with PIL images; None: tensors on the device
    float32: bool = False
    fused: bool = True  # one optimizer kernel for all parameters
    tuned_malloc: bool = True
    read_loss: bool = False  # at every batch, instead of a few times a second
    compiled: bool = False  # by torch.compile; its start-up is not counted
    images: float = 1.0  # fraction of the training and test images


USUAL = Variant(float32=True, fused=False, tuned_malloc=False)
VARIANTS = {
    "ours: tensors, whole batches, bfloat16": Variant(),
    "original: PIL, 2 workers, loss read every batch": replace(USUAL, workers=2, read_loss=True),
    "plain: PIL, 1 worker": replace(USUAL, workers=1),
    "ours with PIL and 2 workers": Variant(workers=2),
    "ours in float32": Variant(float32=True),
    "ours without malloc tuning": Variant(tuned_malloc=False),
    "ours with torch.compile": Variant(compiled=True),
    "ours, half of the images": Variant(images=0.5),
    "ours, a quarter of the images": Variant(images=0.25),
}


def variants(step: str) -> list[str]:
    """The variants measured of a step: for step 3, all except the plain one; for the others, ours and the plain one."""
    compiler = shutil.which("g++")  # torch.compile needs it on the CPU
    return [
        name
        for name, variant in VARIANTS.items()
        if (compiler or not variant.compiled)
        and (
            not name.startswith("plain")
            if step == "augmentation"
            else name.startswith(("plain", "ours:"))
        )
    ]


def measure(experiment: Experiment, variant: Variant, device: str | None, share: float) -> dict:
    """Train and test for an epoch on a share of the images; returns `seconds`, and `memory`, the main process's peak in MB."""
    import resource  # not on Windows, where the report should still work

    experiment = replace(
        experiment,
        precision="float32" if variant.float32 else "auto",
        optimizer_args={**experiment.optimizer_args, **({} if variant.fused else {"fused": False})},
    )
    share *= variant.images
    if variant.workers is None:
        parts = prepare(experiment, 1, device)
        loaders = parts["train_loader"], parts["test_loader"]
        for loader in loaders:
            loader.images, loader.labels = (
                part[: int(len(part) * share)] for part in (loader.images, loader.labels)
            )
    else:
        os.environ["MNIST_REDUCED"] = (
            "1"  # the tensors are not used: load few, so that they do not count as memory
        )
        parts = prepare(experiment, 1, device)
        loaders = [
            usual_loader(experiment, train, share, variant.workers) for train in (True, False)
        ]
    if variant.tuned_malloc:
        training.tune_malloc()
    if variant.read_loss:
        training.REFRESH = 0.0
    model, device = (
        torch.compile(parts["model"], dynamic=False) if variant.compiled else parts["model"],
        parts["device"],
    )
    options = {"averaged": parts["averaged"], "precision": parts["precision"]}
    size = (
        10 * experiment.batch_size + int(60_000 * share) % experiment.batch_size
    )  # with a last batch as an epoch has
    warm_up = Loader(
        torch.rand(size, 1, 28, 28, device=device),
        torch.zeros(size, dtype=torch.long, device=device),
        experiment.batch_size,
    )
    training.train(model, device, warm_up, parts["optimizer"], progress=False, **options)
    started = time.perf_counter()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        training.train(model, device, loaders[0], parts["optimizer"], **options)
        training.test(parts["model"], device, loaders[1])
    seconds, unit = time.perf_counter() - started, 1024**2 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def usual_loader(experiment: Experiment, train: bool, share: float, workers: int) -> DataLoader:
    """The usual DataLoader: PIL images, transformed one at a time in worker processes."""
    steps = []
    if train and experiment.augmentation:
        interpolation = transforms.InterpolationMode(experiment.augmentation["interpolation"])
        steps.append(
            transforms.RandomAffine(**{**experiment.augmentation, "interpolation": interpolation})
        )
    steps.append(transforms.ToTensor())
    if experiment.normalized:
        steps.append(transforms.Normalize((MEAN,), (STD,)))
    dataset = copy(read_mnist(data_root())[0 if train else 1])
    dataset.transform = transforms.Compose(steps)
    return DataLoader(
        Subset(dataset, range(int(len(dataset) * share))),
        experiment.batch_size,
        shuffle=train,
        num_workers=workers,
    )


def benchmark(
    steps: list[str], turns: int = 3, quick: bool = False, device: str | None = None
) -> dict:
    """Measure the variants of these steps, `turns` times each; a record of all steps and images goes to `results/bench.json`."""
    share = 0.1 if quick else 1.0
    record = {
        "turns": turns,
        "share": share,
        **environment(training.pick_device(device)),
        "steps": {step: {name: [] for name in variants(step)} for step in steps},
    }
    todo = [(step, name) for step in steps for _ in range(turns) for name in variants(step)]
    for step, name in tqdm(todo, unit="measurement"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            record["steps"][step][name].append(
                process.submit(measure, STEPS[step], VARIANTS[name], device, share).result()
            )
    if not quick and not smoke_test_epochs() and list(steps) == list(STEPS):
        with records.atomic_write(RECORD) as temporary:
            temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record


def load() -> dict:
    """The recorded benchmark."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def ratios(record: dict, step: str) -> dict[str, list[float]]:
    """For each variant, its time divided by that of our pipeline, the first variant, in the same turn."""
    measured = record["steps"][step]
    return {
        name: [
            run["seconds"] / ours["seconds"]
            for run, ours in zip(runs, next(iter(measured.values())))
        ]
        for name, runs in measured.items()
    }


def table(record: dict) -> str:
    """The record as a Markdown table."""
    rows = [
        "| step | pipeline | seconds per epoch | images per second | peak memory (MB) | time relative to ours |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for step, measured in record["steps"].items():
        for name, values in ratios(record, step).items():
            seconds = mean(run["seconds"] for run in measured[name])
            images = 70_000 * record["share"] * VARIANTS[name].images
            rows.append(
                f"| {step} | {name} | {seconds:.1f} | {images / seconds:,.0f} | "
                f"{max(run['memory'] for run in measured[name]):,.0f} | "
                f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f}) |"
            )
    rows += [
        "",
        f"Measured on {record['device_name']} with {record['threads']} threads and PyTorch {record['torch']}, "
        f"{record['turns']} rounds: the mean, and the range of the ratios.",
    ]
    return "\n".join(rows)
