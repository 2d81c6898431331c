"""The benchmark: this package against the usual pipelines, side by side in one run.

Every measurement is one epoch, training and testing, in a fresh process, after a warm-up of a few batches. The variants take
turns (A B C A B C …), so that a machine that drifts slows all of them alike; compared is their ratio within a turn.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm

from . import records, training
from .data import MEAN, STD, Loader, data_root, read_mnist, reduced
from .device import keep_memory, pick_device
from .experiments import STEPS, Experiment, environment, prepare

RECORD = records.RESULTS / "bench.json"
PROFILED = 100  # batches


@dataclass(frozen=True)
class Variant:
    """One way to run an epoch of a recipe; the defaults are those of this package."""

    workers: int | None = None  # of a DataLoader with PIL images; None for tensors on the device, batches at once
    float32: bool = False
    channels_last: bool = True  # where the recipe asks for it: the kernels of channels_last.c; not in float32
    fused: bool = True          # one optimizer kernel for all parameters
    keep_memory: bool = True    # glibc keeps freed memory for the next step
    redraw: bool = False        # the progress bar, and read the loss for it, at every batch, not a few times a second
    compiled: bool = False      # torch.compile; its start-up is not counted
    images: float = 1.0         # share of the training and test images
    epochs: int = 1


USUAL = Variant(float32=True, channels_last=False, fused=False, keep_memory=False)
VARIANTS = {
    "ours": Variant(),
    "original: PIL, DataLoader with 2 workers, loss read at every batch": replace(USUAL, workers=2, redraw=True),
    "plain: PIL, DataLoader with 1 worker": replace(USUAL, workers=1),
    "ours, but PIL and a DataLoader with 2 workers": Variant(workers=2),
    "ours, but channels first": Variant(channels_last=False),
    "ours, but channels first and float32": Variant(channels_last=False, float32=True),
    "ours, but channels first and compiled": Variant(channels_last=False, compiled=True),
    "ours, but the optimizer not fused": Variant(fused=False),
    "ours, but memory handed back": Variant(keep_memory=False),
    "ours, but the bar redrawn at every batch": Variant(redraw=True),
    "ours, on half the images": Variant(images=0.5),
    "ours, on a quarter of the images": Variant(images=0.25),
    "ours, three epochs": Variant(epochs=3),
}


def variants(step: str) -> list[str]:
    """Which variants a step is measured with: all with augmentation against the original, the others against the plain one."""
    if not STEPS[step].augmentation:
        return [name for name in VARIANTS if name == "ours" or name.startswith("plain")]
    compiler = shutil.which("g++")  # which torch.compile needs
    return [name for name in VARIANTS if not name.startswith("plain") and (compiler or not VARIANTS[name].compiled)]


def build(experiment: Experiment, variant: Variant, device: str | None, share: float) -> dict:
    """What trains and tests an epoch of this variant on `share` of the images; the model is warm after a few batches."""
    experiment = replace(experiment, channels_last=experiment.channels_last and variant.channels_last,
                         precision="float32" if variant.float32 else "auto")
    parts = prepare(experiment, 1, device)
    model, device = parts["model"], parts["device"]
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
        keep_memory()
    if variant.redraw:
        training.REFRESH = 0.0
    forward = torch.compile(model, dynamic=False) if variant.compiled else parts["forward"]
    parts["step"] = training.make_step(model, device, parts["optimizer"], averaged=parts["averaged"], forward=forward,
                                       precision=parts["precision"])
    size = 10 * experiment.batch_size + int(60_000 * share * variant.images) % experiment.batch_size  # odd last batch too
    warm_up = Loader(torch.rand(size, 1, 28, 28, device=device), torch.zeros(size, dtype=torch.long, device=device),
                     experiment.batch_size)
    started = time.perf_counter()
    training.train(model, device, warm_up, parts["optimizer"], step=parts["step"], progress=False)
    return {**parts, "warm_up": time.perf_counter() - started}


def usual_loader(experiment: Experiment, train: bool, count: int, workers: int) -> DataLoader:
    """The DataLoader that most notebooks have: PIL images, transforms one image at a time, in worker processes."""
    steps = []
    if train and experiment.augmentation:
        steps.append(transforms.RandomAffine(**{**experiment.augmentation, "interpolation": transforms.InterpolationMode(
            experiment.augmentation["interpolation"])}))
    steps.append(transforms.ToTensor())
    if experiment.normalized:
        steps.append(transforms.Normalize((MEAN,), (STD,)))
    dataset = copy(read_mnist(data_root())[0 if train else 1])
    dataset.transform = transforms.Compose(steps)
    return DataLoader(Subset(dataset, range(count)), experiment.batch_size, shuffle=train, num_workers=workers)


def measure(experiment: Experiment, variant: Variant, device: str | None, share: float) -> dict:
    """Train and test for `variant.epochs` epochs.

    Returns `seconds`; `warm_up`, the seconds of the first batches; `faults`, the page faults per batch; `memory`, the peak of
    the main process in MB.
    """
    parts = build(experiment, variant, device, share)
    faults, started = page_faults(), time.perf_counter()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for _ in range(variant.epochs):
            training.train(parts["model"], parts["device"], parts["train_loader"], parts["optimizer"], step=parts["step"])
            training.test(parts["model"], parts["device"], parts["test_loader"])
    seconds = time.perf_counter() - started
    batches = variant.epochs * (len(parts["train_loader"]) + len(parts["test_loader"]))
    return {"seconds": seconds, "warm_up": parts["warm_up"], "memory": peak_memory(),
            "faults": (page_faults() - faults) / batches}


def peak_memory() -> float:
    """The most memory that this process has held so far, in MB; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def page_faults() -> int:
    """The page faults that this process has taken so far without reading a disk; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[7])
    except OSError:
        return 0


def forget_peak() -> None:
    """Start `peak_memory` anew from what the process holds now: the usual pipelines do not keep the set as tensors."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def profile(experiment: Experiment, variant: Variant, device: str | None, share: float) -> dict:
    """Where the main process spends a training step, under the profiler.

    Returns `operations`, milliseconds of each by name; `step`, milliseconds in all; `gpu_busy`, the share of the time in which
    a CUDA device computes.
    """
    parts = build(experiment, variant, device, share)
    device = parts["device"]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch.profiler.profile(activities=activities) as profiler:
        started = time.perf_counter()
        training.train(parts["model"], device, islice(parts["train_loader"], PROFILED), parts["optimizer"],
                       step=parts["step"], progress=False)
        seconds = time.perf_counter() - started
    events = profiler.key_averages()
    steps = min(PROFILED, len(parts["train_loader"]))
    found = {event.key: event.self_cpu_time_total / 1e3 / steps for event in events}
    busy = sum(event.self_device_time_total for event in events if event.device_type == DeviceType.CUDA)
    return {"operations": {name: value for name, value in found.items() if value >= 0.01},
            "step": 1e3 * seconds / steps, "gpu_busy": busy / 1e6 / seconds}


def rates(experiment: Experiment, device: str | None) -> dict:
    """What a training step needs and what the machine can do, measured in one process.

    `step` and `augmentation`: seconds per batch; `flops`: floating-point operations of a step, forward and backward;
    `float32` and `bfloat16`: the machine's rate in matrix products of 2048 × 2048, in operations per second.
    """
    parts = build(experiment, Variant(), device, 1.0)
    device, loader = parts["device"], parts["train_loader"]
    data, target = next(iter(loader))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.nll_loss(parts["model"](data), target).backward()
    found = {"flops": counter.get_total_flops()}

    def seconds(call: Callable, repeat: int) -> float:
        call()
        synchronize(device)
        started = time.perf_counter()
        for _ in range(repeat):
            call()
        synchronize(device)
        return (time.perf_counter() - started) / repeat

    loader.images, loader.labels = loader.images[:100 * loader.batch_size], loader.labels[:100 * loader.batch_size]
    found["step"] = seconds(lambda: training.train(parts["model"], device, loader, parts["optimizer"], step=parts["step"],
                                                   progress=False), 3) / len(loader)
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
    """Measure the variants of these steps, `turns` times each; returns the record.

    It is written where it is of all steps and of all images.
    """
    share = 0.1 if quick else 1.0
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library is talkative
    bare = subprocess.run([sys.executable, "-c", "import torch; print(open('/proc/self/status').read())"],
                          capture_output=True, text=True).stdout
    compiled = tempfile.TemporaryDirectory()  # the first that compiles starts cold, as in a first run
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled.name
    record = {"turns": turns, "share": share, **environment(pick_device(device)), "steps": {},
              "bare": int(bare.split("VmHWM:")[1].split()[0]) / 1024 if bare else 0.0}  # import of torch alone, in MB
    total = sum(len(variants(step)) * turns + 1 + 2 * bool(STEPS[step].augmentation) for step in steps)
    with compiled, tqdm(total=total, file=sys.stderr, unit="measurement") as bar:
        def fresh(function: Callable, *arguments) -> dict:
            bar.set_description(arguments[0].name)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                found = process.submit(function, *arguments).result()
            bar.update()
            return found

        for step in steps:
            measured = {name: [] for name in variants(step)}
            for _ in range(turns):
                for name, runs in measured.items():
                    runs.append(fresh(measure, STEPS[step], VARIANTS[name], device, share))
            record["steps"][step] = {"variants": measured, "rates": fresh(rates, STEPS[step], device)}
            if STEPS[step].augmentation:
                record["steps"][step]["profiles"] = {name: fresh(profile, STEPS[step], VARIANTS[name], device, share)
                                                     for name in measured if name.startswith("ours") == (name == "ours")}
    if not quick and not reduced() and list(steps) == list(STEPS):
        with records.replacing(RECORD) as new:
            new.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record


def table(record: dict) -> str:
    """The record as Markdown: per step a table of its variants, and what share of the machine's rate it reaches."""
    lines = [f"Measured on {record['device_name']}, {record['threads']} threads, {record['turns']} turns.", ""]
    for step, measured in record["steps"].items():
        ours, found = measured["variants"]["ours"], measured["rates"]
        lines += [f"**{step}**", "", "| pipeline | seconds | images per second | peak memory (MB) | "
                  "page faults per batch | times ours |", "| --- | --- | --- | --- | --- | --- |"]
        for name, runs in measured["variants"].items():
            ratios = [run["seconds"] / own["seconds"] for run, own in zip(runs, ours)]
            images = 70_000 * record["share"] * VARIANTS[name].images * VARIANTS[name].epochs
            seconds, memory = mean(run["seconds"] for run in runs), max(run["memory"] for run in runs) - record["bare"]
            lines.append(f"| {name} | {seconds:.2f} | {images / seconds:,.0f} | {memory:,.0f} | "
                         f"{mean(run['faults'] for run in runs):,.0f} | "
                         f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
        rate = found["flops"] / found["step"]
        lines += ["", f"A training step takes {1e3 * found['step']:.1f} ms for {found['flops'] / 1e9:.2f} GFLOP: "
                  f"{rate / 1e9:,.0f} GFLOP/s, {rate / found['float32']:.0%} of the machine's rate in float32 matrix "
                  f"products ({found['float32'] / 1e9:,.0f} GFLOP/s) and {rate / found['bfloat16']:.1%} of that in bfloat16 "
                  f"({found['bfloat16'] / 1e9:,.0f} GFLOP/s)."
                  + (f" Augmentation takes {1e3 * found['augmentation']:.2f} ms of it, "
                     f"{found['augmentation'] / found['step']:.1%}." if found["augmentation"] else ""), ""]
        if compiled := measured["variants"].get("ours, but channels first and compiled"):
            plain = measured["variants"]["ours, but channels first"]
            cold, warm = (find(run["warm_up"] for run in compiled) - mean(run["warm_up"] for run in plain) for find in (max, min))
            gain = mean(run["seconds"] for run in plain) - mean(run["seconds"] for run in compiled)
            lines += [f"With the channels first, `torch.compile` takes {cold:.0f} s to start, {warm:.0f} s where its cache holds "
                      f"the result, and saves {15 * gain:.0f} s in 15 epochs.", ""]
        if "profiles" in measured:
            lines += [profile_table(measured["profiles"]), ""]
    return "\n".join(lines).rstrip()


def profile_table(profiles: dict[str, dict], rows: int = 10) -> str:
    """Milliseconds of a training step by operation, the largest first, one column per pipeline."""
    largest = {}
    for found in profiles.values():
        for name, value in found["operations"].items():
            largest[name] = max(largest.get(name, 0.0), value)
    def row(name: str, values: Iterable[str]) -> str:
        return f"| {name} | {' | '.join(values)} |"

    lines = [row("operation, milliseconds per step", (name.partition(":")[0] for name in profiles)),
             "| --- |" + " --- |" * len(profiles)]
    lines += [row(f"`{name}`", (f"{found['operations'].get(name, 0.0):.2f}" for found in profiles.values()))
              for name in sorted(largest, key=largest.get, reverse=True)[:rows]]
    lines.append(row("the whole step, under the profiler", (f"{found['step']:.1f}" for found in profiles.values())))
    if any(found["gpu_busy"] for found in profiles.values()):
        lines.append(row("share of it in which the GPU computes", (f"{found['gpu_busy']:.0%}" for found in profiles.values())))
    return "\n".join(lines)
