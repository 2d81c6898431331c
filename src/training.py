"""The loops: `train` one epoch, `test` a model, `fit` it over all epochs."""

import ctypes
import platform
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

REFRESH = 0.3  # seconds between two refreshes of the progress bar: reading the loss waits for the device


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name; without one, CUDA if there is one, then MPS, then the CPU.

    Raises RuntimeError if the device is not there.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"no device {name!r} here: leave it out to take the best there is, or ask for 'cpu'") from error
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the device is sold as, as far as it tells."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu().get("cpu_name", platform.machine())


def _cpu() -> dict:
    return getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch that this package runs with


def pick_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """The type in which the forward and backward pass compute: float32, or bfloat16 under autocast.

    "auto" is bfloat16 where the device has instructions for it (CUDA; CPUs with AVX-512 BF16), else float32.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown precision {name!r}: it is 'auto', 'float32' or 'bfloat16'")
    if name == "auto":
        fast = (torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else
                device.type == "cpu" and _cpu().get("avx512_bf16", False))
        name = "bfloat16" if fast else "float32"
    return getattr(torch, name)


def keep_memory() -> None:
    """Let glibc keep the memory that a step frees for the next step, instead of returning it to the system.

    Without this, every step on the CPU takes thousands of page faults. It holds for the whole process, and does nothing
    where there is no glibc.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25):  # older ones take no more than 32 MiB
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def bar_text(loss: float, batch: int, accuracy: float) -> str:
    """What stands before the progress bar; loss and accuracy (in %) are means over the epoch so far."""
    return f"Loss={loss:.4f} Batch_id={batch} Accuracy={accuracy:.2f}"


def test_text(loss: float, correct: int, count: int, name: str = "Test set") -> str:
    """The line after each epoch."""
    return f"{name}: Average loss: {loss:.4f}, Accuracy: {correct}/{count} ({100 * correct / count:.2f}%)"


def train(model: nn.Module, device: torch.device, train_loader, optimizer: torch.optim.Optimizer, *,
          scheduler: LRScheduler | None = None, averaged: AveragedModel | None = None,
          precision: torch.dtype = torch.float32, progress: bool = True) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the accuracy in %, both as seen while training.

    `train_loader` yields `(data, target)`: a `Loader`, or any `DataLoader`. After every batch, `scheduler` sets the next
    learning rate and `averaged` takes in the new weights.
    """
    model.train()
    total_loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.long, device=device)
    seen, refreshed = 0, time.monotonic()
    with tqdm(train_loader, file=sys.stdout, mininterval=REFRESH, disable=not progress) as bar:
        for batch, (data, target) in enumerate(bar):
            data, target = data.to(device), target.to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
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
            if progress and (time.monotonic() - refreshed > REFRESH or batch + 1 == len(train_loader)):
                bar.set_description(bar_text(total_loss.item() / seen, batch, 100 * correct.item() / seen), refresh=False)
                refreshed = time.monotonic()
    return total_loss.item() / seen, 100 * correct.item() / seen


@torch.no_grad()
def test(model: nn.Module, device: torch.device, test_loader, *, name: str = "Test set",
         progress: bool = True) -> tuple[float, float]:
    """Print and return the mean loss and the accuracy in % over the loader's images, always in float32."""
    model.eval()
    total_loss, correct, seen = torch.zeros((), device=device), torch.zeros((), dtype=torch.long, device=device), 0
    for data, target in test_loader:
        data, target = data.to(device), target.to(device)
        output = model(data)
        total_loss += F.nll_loss(output, target, reduction="sum")
        correct += (output.argmax(dim=1) == target).sum()
        seen += len(data)
    if progress:
        print(test_text(total_loss.item() / seen, correct.item(), seen, name), flush=True)
    return total_loss.item() / seen, 100 * correct.item() / seen


@torch.no_grad()
def predict(model: nn.Module, device: torch.device, loader) -> tuple[torch.Tensor, torch.Tensor]:
    """The predicted digit and its probability in [0, 1] for each of the loader's N images.

    Returns tensors of shape (N,), int64 and float32, on the CPU.
    """
    model.eval()
    confidence, prediction = zip(*(model(data.to(device)).exp().max(dim=1) for data, _ in loader))
    return torch.cat(prediction).cpu(), torch.cat(confidence).cpu()


def fit(model: nn.Module, device: torch.device, train_loader, test_loader, optimizer: torch.optim.Optimizer, epochs: int, *,
        scheduler: LRScheduler | None = None, averaged: AveragedModel | None = None,
        precision: torch.dtype = torch.float32, progress: bool = True, test_name: str = "Test set") -> list[dict]:
    """Train and test for `epochs` epochs; returns the history, one dict per epoch.

    Its keys: `epoch` (from 1), `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, `seconds` (of training).
    A `OneCycleLR` is stepped after every batch, any other scheduler after every epoch. Where there is an `averaged` model,
    it is the one that is tested.
    """
    keep_memory()
    per_batch = isinstance(scheduler, OneCycleLR)
    history = []
    for epoch in range(1, epochs + 1):
        if progress:
            print(f"EPOCH: {epoch}")
        started = time.perf_counter()
        train_loss, train_accuracy = train(model, device, train_loader, optimizer,
                                           scheduler=scheduler if per_batch else None, averaged=averaged,
                                           precision=precision, progress=progress)
        seconds = time.perf_counter() - started
        if scheduler and not per_batch:
            scheduler.step()
        test_loss, test_accuracy = test(averaged.module if averaged else model, device, test_loader, name=test_name,
                                        progress=progress)
        history.append({"epoch": epoch, "train_loss": train_loss, "train_accuracy": train_accuracy,
                        "test_loss": test_loss, "test_accuracy": test_accuracy, "seconds": seconds})
    return history
