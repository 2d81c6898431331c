"""The benchmark: this package against the usual pipelines, side by side in one run.

Every measurement is one epoch, training and testing, in a fresh process, after a warm-up of a few batches. The variants take
turns (A B C A B C …), so that a machine that drifts slows all of them alike; compared is their ratio within a turn.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms
from tqdm import tqdm

from . import records, training
from .data import MEAN, STD, Loader, data_root
from .experiments import STEPS, Experiment, environment, prepare


RECORD = records.RESULTS / "bench.json"


@dataclass(frozen=True)
class Variant:
    """One way to run an epoch of a recipe; the defaults are those of this package."""

    workers: int | None = None  # of a DataLoader with PIL images; None for tensors on the device, batches at once
    float32: bool = False
    fused: bool = True          # one optimizer kernel for all parameters
    keep_memory: bool = True    # glibc keeps freed memory for the next step
    read_loss: bool = False     # at every batch, for the progress bar, instead of a few times a second
    compiled: bool = False      # torch.compile; its start-up is not counted
    images: float = 1.0         # share of the training and test images


USUAL = Variant(float32=True, fused=False, keep_memory=False, read_loss=True)
VARIANTS = {
    "ours": Variant(),
    "original: PIL, DataLoader with 2 workers": replace(USUAL, workers=2),
    "plain: PIL, DataLoader with 1 worker": replace(USUAL, workers=1),
    "ours, but PIL and a DataLoader with 2 workers": Variant(workers=2),
    "ours, but float32": Variant(float32=True),
    "ours, but the optimizer not fused": Variant(fused=False),
    "ours, but memory handed back": Variant(keep_memory=False),
    "ours, but the loss read at every batch": Variant(read_loss=True),
    "ours, and compiled": Variant(compiled=True),
    "ours, on half the images": Variant(images=0.5),
    "ours, on a quarter of the images": Variant(images=0.25),
}


def epoch(experiment: Experiment, variant: Variant, device: str | None, share: float) -> dict:
    """Measure one epoch on `share` of the images: seconds, and peak memory in MB above the bare import of torch."""
    base = peak_memory()
    parts = prepare(experiment, 1, device)
    model, device = parts["model"], parts["device"]
    precision = torch.float32 if variant.float32 else parts["precision"]
    for name in ("train_loader", "test_loader"):
        loader = parts.pop(name)
        count = int(len(loader.images) * share * variant.images)
        if variant.workers is None:
            loader.images, loader.labels = loader.images[:count], loader.labels[:count]
            parts[name] = loader
        else:
            del loader
            parts[name] = usual_loader(experiment, name == "train_loader", count, variant.workers)
            forget_peak()
    if not variant.fused:
        parts["optimizer"] = getattr(torch.optim, experiment.optimizer)(model.parameters(), **experiment.optimizer_args)
    if variant.keep_memory:
        training.keep_memory()
    if variant.read_loss:
        training.REFRESH = 0.0
    size = 10 * experiment.batch_size + int(60_000 * share * variant.images) % experiment.batch_size  # odd last batch too
    warm_up = Loader(torch.rand(size, 1, 28, 28, device=device), torch.zeros(size, dtype=torch.long, device=device),
                     experiment.batch_size)
    forward = torch.compile(model, dynamic=False) if variant.compiled else model
    training.train(forward, device, warm_up, parts["optimizer"], precision=precision, progress=False)

    started = time.perf_counter()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        training.train(forward, device, parts["train_loader"], parts["optimizer"], averaged=parts["averaged"],
                       precision=precision)
    trained = time.perf_counter()
    training.test(model, device, parts["test_loader"], progress=False)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "train_seconds": trained - started, "memory": peak_memory() - base}


def usual_loader(experiment: Experiment, train: bool, count: int, workers: int) -> DataLoader:
    """The DataLoader that most notebooks have: PIL images, transforms one image at a time, in worker processes."""
    steps = []
    if train and experiment.augmentation:
        steps.append(transforms.RandomAffine(**{**experiment.augmentation, "interpolation": transforms.InterpolationMode(
            experiment.augmentation["interpolation"])}))
    steps.append(transforms.ToTensor())
    if experiment.normalized:
        steps.append(transforms.Normalize((MEAN,), (STD,)))
    dataset = datasets.MNIST(data_root(), train=train, transform=transforms.Compose(steps))
    return DataLoader(Subset(dataset, range(count)), experiment.batch_size, shuffle=train, num_workers=workers)


def peak_memory() -> float:
    """The most memory that this process has held so far, in MB; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Start `peak_memory` anew from what the process holds now: the usual pipelines do not keep the set as tensors."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def rates(experiment: Experiment, device: str | None) -> dict:
    """What a training step needs and what the machine can do, measured in one process.

    `step` and `augmentation`: seconds per batch; `flops`: floating-point operations of a step, forward and backward;
    `float32` and `bfloat16`: the machine's rate in matrix products of 2048 × 2048, in operations per second.
    """
    training.keep_memory()
    parts = prepare(experiment, 1, device)
    device, loader = parts["device"], parts["train_loader"]
    data, target = next(iter(loader))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.nll_loss(parts["model"](data), target).backward()
    found = {"flops": counter.get_total_flops()}

    def seconds(call, repeat: int) -> float:
        call()
        synchronize(device)
        started = time.perf_counter()
        for _ in range(repeat):
            call()
        synchronize(device)
        return (time.perf_counter() - started) / repeat

    loader.images, loader.labels = loader.images[:100 * loader.batch_size], loader.labels[:100 * loader.batch_size]

    def train() -> None:
        training.train(parts["model"], device, loader, parts["optimizer"], averaged=parts["averaged"],
                       precision=parts["precision"], progress=False)

    found["step"] = seconds(train, 3) / len(loader)
    batches = seconds(lambda: list(loader), 3) / len(loader)
    augment, loader.augment = loader.augment, None
    found["augmentation"] = batches - seconds(lambda: list(loader), 3) / len(loader) if augment else 0.0
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(2048, 2048, device=device, dtype=dtype)
        found[str(dtype).removeprefix("torch.")] = 2 * 2048**3 / seconds(lambda: matrix @ matrix, 20)
    return found


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def bench(steps: list[str], turns: int = 3, quick: bool = False, device: str | None = None) -> dict:
    """Measure every variant that fits these steps, `turns` times each; returns the record and, unless `quick`, writes it.

    `original` is compared in step 3 and `plain` in the steps without augmentation.
    """
    share, record = 0.1 if quick else 1.0, {"turns": turns, "share": 0.1 if quick else 1.0, "steps": {}}
    work = [(step, name) for step in steps for name in VARIANTS
            if not name.startswith("plain" if STEPS[step].augmentation else ("original", "ours, but PIL"))
            and (shutil.which("g++") or not VARIANTS[name].compiled)]  # torch.compile needs a compiler
    with tqdm(total=len(work) * turns + len(steps), file=sys.stderr, unit="epoch") as bar:
        def measure(function, *arguments):
            bar.set_description(arguments[0].name)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                found = fresh.submit(function, *arguments).result()
            bar.update()
            return found

        for step in steps:
            names = [name for which, name in work if which == step]
            found = {name: [] for name in names}
            for _ in range(turns):
                for name in names:
                    found[name].append(measure(epoch, STEPS[step], VARIANTS[name], device, share))
            record["steps"][step] = {"variants": found, "rates": measure(rates, STEPS[step], device)}
    record.update(environment(training.pick_device(device)))
    if not quick:
        RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record


def table(record: dict) -> str:
    """The record as Markdown: a table per step, and what share of the machine's rate the training step reaches."""
    lines = []
    for step, measured in record["steps"].items():
        ours, found = measured["variants"]["ours"], measured["rates"]
        lines += [f"**{step}**", "", "| pipeline | seconds per epoch | images per second | peak memory (MB) | times ours |",
                  "| --- | --- | --- | --- | --- |"]
        for name, runs in measured["variants"].items():
            ratios = [run["seconds"] / own["seconds"] for run, own in zip(runs, ours)]
            count = 70_000 * record["share"] * VARIANTS[name].images
            seconds = mean(run["seconds"] for run in runs)
            lines.append(f"| {name} | {seconds:.2f} | {count / seconds:,.0f} | {max(run['memory'] for run in runs):,.0f} | "
                         f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
        rate = found["flops"] / found["step"]
        lines += ["", f"A training step takes {1e3 * found['step']:.1f} ms for {found['flops'] / 1e9:.2f} GFLOP: "
                  f"{rate / 1e9:,.0f} GFLOP/s, {rate / found['float32']:.0%} of the machine's rate in float32 matrix "
                  f"products ({found['float32'] / 1e9:,.0f} GFLOP/s) and {rate / found['bfloat16']:.0%} of that in bfloat16 ({found['bfloat16'] / 1e9:,.0f}). Augmentation takes "
                  f"{1e3 * found['augmentation']:.2f} ms of it, {found['augmentation'] / found['step']:.1%}.", ""]
    return "\n".join(lines).rstrip()
