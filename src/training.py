"""The device and the precision; the loops: `train` one epoch, `test` a model, `fit` it over all epochs, `predict`."""

import contextlib
import ctypes
import math
import sys
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

REFRESH = 0.3  # seconds between updates of the progress bar: reading the loss waits for the device


def pick_device(name: str | None = None) -> torch.device:
    """The named device; by default CUDA if available, then MPS, then the CPU. Raises ValueError if it is not available."""
    if name is None:
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} is not available here: choose 'cuda', 'mps' or 'cpu', or omit it"
        ) from error


def pick_precision(device: torch.device, name: str = "auto") -> str:
    """The precision of the forward and backward pass: "float32", or "bfloat16" (autocast; the weights stay float32).

    "auto" is bfloat16 if PyTorch reports that the device has instructions for it (CUDA; CPUs with AVX-512 BF16), else float32.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown precision {name!r}: choose 'auto', 'float32' or 'bfloat16'")
    if name != "auto":
        return name
    cpu = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest supported PyTorch
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else device.type == "cpu" and cpu.get("avx512_bf16", False)
    )
    return "bfloat16" if fast else "float32"


def tune_malloc() -> None:
    """Make glibc keep freed memory for the next step instead of returning it to the system, for the whole process.

    Without this, a training step on the CPU causes hundreds of page faults. Without glibc, this does nothing.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(
        M_MMAP_THRESHOLD, 1 << 25
    ):  # older versions accept at most 32 MiB
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def format_progress(loss: float, batch: int, accuracy: float) -> str:
    """The text before the progress bar: loss and accuracy (in %) are means over the epoch so far."""
    return f"Loss={loss:.4f} Batch_id={batch} Accuracy={accuracy:.2f}"


def format_test(loss: float, correct: int, count: int, name: str = "Test set") -> str:
    """The line after each epoch."""
    return f"{name}: Average loss: {loss:.4f}, Accuracy: {correct}/{count} ({100 * correct / count:.2f}%)"


def format_epoch(epoch: Mapping, batches: int, count: int, name: str = "Test set") -> str:
    """What was printed for an epoch of a history: of `batches` batches, tested on `count` images."""
    prefix = format_progress(epoch["train_loss"], batches - 1, epoch["train_accuracy"])
    correct = round(epoch["test_accuracy"] * count / 100)
    return "\n".join(
        [
            f"EPOCH: {epoch['epoch']}",
            tqdm.format_meter(batches, batches, epoch["seconds"], prefix=prefix),
            format_test(epoch["test_loss"], correct, count, name),
        ]
    )


class DivergenceError(RuntimeError):
    """The loss is not finite; `experiments.run` sets `record` to the record of the run so far."""

    record: dict | None = None


def train(
    model: nn.Module,
    device: torch.device,
    train_loader,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: LRScheduler | None = None,
    averaged: AveragedModel | None = None,
    precision: str = "float32",
    progress: bool = True,
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the accuracy in %, both averaged over the epoch.

    `train_loader` yields `(data, target)`: a `Loader`, or any `DataLoader`. After every batch, `scheduler` sets the next learning
    rate, and `averaged` is updated with the new weights.

    Raises DivergenceError when the loss is not finite: on the CPU at that batch, else at the next update of the progress bar.
    """
    model.train()
    total_loss, correct = (
        torch.zeros((), device=device),
        torch.zeros((), dtype=torch.long, device=device),
    )
    seen, refreshed = 0, time.monotonic()
    with tqdm(train_loader, file=sys.stdout, mininterval=REFRESH, disable=not progress) as bar:
        for batch, (data, target) in enumerate(bar):
            data, target = data.to(device), target.to(device)
            optimizer.zero_grad()
            with (
                contextlib.nullcontext()
                if precision == "float32"
                else torch.autocast(device.type, torch.bfloat16)
            ):
                output = model(data)
                loss = F.nll_loss(output, target)
            loss.backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
            if averaged:
                averaged.update_parameters(model)
            total_loss += loss.detach() * len(data)
            correct += (output.argmax(dim=1) == target).sum()
            seen += len(data)
            refresh = time.monotonic() - refreshed > REFRESH or batch + 1 == bar.total
            if (refresh or device.type == "cpu") and not math.isfinite(total_loss.item()):
                raise DivergenceError(
                    f"batch {batch}, learning rate {optimizer.param_groups[0]['lr']:.2g}: the loss is not "
                    "finite; try a lower learning rate"
                )
            if refresh:
                refreshed = time.monotonic()
                bar.set_description(
                    format_progress(total_loss.item() / seen, batch, 100 * correct.item() / seen),
                    refresh=False,
                )
    return total_loss.item() / seen, 100 * correct.item() / seen


@torch.no_grad()
def test(
    model: nn.Module,
    device: torch.device,
    test_loader,
    *,
    name: str = "Test set",
    progress: bool = True,
) -> tuple[float, float]:
    """Print and return the mean loss and the accuracy in % on the loader's images, computed in float32."""
    model.eval()
    total_loss, correct, seen = (
        torch.zeros((), device=device),
        torch.zeros((), dtype=torch.long, device=device),
        0,
    )
    for data, target in test_loader:
        data, target = data.to(device), target.to(device)
        output = model(data)
        total_loss += F.nll_loss(output, target, reduction="sum")
        correct += (output.argmax(dim=1) == target).sum()
        seen += len(data)
    if progress:
        print(format_test(total_loss.item() / seen, correct.item(), seen, name), flush=True)
    return total_loss.item() / seen, 100 * correct.item() / seen


@torch.no_grad()
def predict(model: nn.Module, device: torch.device, loader) -> tuple[torch.Tensor, torch.Tensor]:
    """The predicted digit (int64) and its probability (float32) for each of the loader's N images: shape (N,), on the CPU."""
    model.eval()
    confidence, prediction = zip(*(model(data.to(device)).exp().max(dim=1) for data, _ in loader))
    return torch.cat(prediction).cpu(), torch.cat(confidence).cpu()


def fit(
    model: nn.Module,
    device: torch.device,
    train_loader,
    test_loader,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    *,
    scheduler: LRScheduler | None = None,
    averaged: AveragedModel | None = None,
    precision: str = "float32",
    progress: bool = True,
    test_name: str = "Test set",
    history: list[dict] | None = None,
    after_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Train and test for `epochs` epochs; returns the history, one dict per epoch.

    Its keys: `epoch` (from 1), `learning_rate` (of the first batch), `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`,
    `seconds` (of training). A `OneCycleLR` steps after every batch, any other scheduler after every epoch. The `averaged` model, if
    given, is the one tested. A resumed run passes its `history`, which is extended in place; `after_epoch` is called with it.
    """
    tune_malloc()
    per_batch = isinstance(scheduler, OneCycleLR)
    history = [] if history is None else history
    for epoch in range(len(history) + 1, epochs + 1):
        if progress:
            print(f"EPOCH: {epoch}")
        started, learning_rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = train(
            model,
            device,
            train_loader,
            optimizer,
            averaged=averaged,
            precision=precision,
            scheduler=scheduler if per_batch else None,
            progress=progress,
        )
        seconds = time.perf_counter() - started
        if scheduler and not per_batch:
            scheduler.step()
        test_loss, test_accuracy = test(
            averaged.module if averaged else model,
            device,
            test_loader,
            name=test_name,
            progress=progress,
        )
        history.append(
            {
                "epoch": epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "seconds": seconds,
            }
        )
        if after_epoch:
            after_epoch(history)
    return history
