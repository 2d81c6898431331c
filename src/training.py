"""The loops: `train` one epoch, `test` a model, `fit` it over all epochs."""

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

from .device import CapturedStep, Step, averaging, keep_memory

REFRESH = 0.3  # seconds between two refreshes of the progress bar: reading the loss waits for the device


def bar_text(loss: float, batch: int, accuracy: float) -> str:
    """What stands before the progress bar; loss and accuracy (in %) are means over the epoch so far."""
    return f"Loss={loss:.4f} Batch_id={batch} Accuracy={accuracy:.2f}"


def test_text(loss: float, correct: int, count: int, name: str = "Test set") -> str:
    """The line after each epoch."""
    return f"{name}: Average loss: {loss:.4f}, Accuracy: {correct}/{count} ({100 * correct / count:.2f}%)"


def epoch_text(epoch: Mapping, batches: int, count: int, name: str = "Test set") -> str:
    """What an epoch of a history printed: of so many batches, tested on `count` images."""
    prefix = bar_text(epoch["train_loss"], batches - 1, epoch["train_accuracy"])
    correct = round(epoch["test_accuracy"] * count / 100)
    return "\n".join([f"EPOCH: {epoch['epoch']}", tqdm.format_meter(batches, batches, epoch["seconds"], prefix=prefix),
                      test_text(epoch["test_loss"], correct, count, name)])


class DivergenceError(RuntimeError):
    """The loss is no longer finite; `record`, where there is one, is that of the run until then."""

    record: dict | None = None


def make_step(model: nn.Module, device: torch.device, optimizer: torch.optim.Optimizer, *,
              averaged: AveragedModel | None = None, forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
              precision: torch.dtype = torch.float32) -> Step:
    """What happens with every batch, as a function of its data and target that returns the loss and the model's output.

    `averaged` takes in the new weights. `forward` is what computes the output, by default the model itself. On a CUDA device
    the step is captured as a graph.
    """
    forward = model if forward is None else forward
    update_average = averaging(averaged, model) if averaged else None

    def step(data: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad()
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            output = forward(data)
            loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if update_average:
            update_average()
        return loss.detach(), output.detach()

    return CapturedStep(step, optimizer) if device.type == "cuda" else step


def train(model: nn.Module, device: torch.device, train_loader, optimizer: torch.optim.Optimizer, *, step: Step | None = None,
          scheduler: LRScheduler | None = None, progress: bool = True) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the accuracy in %, both as seen while training.

    `train_loader` yields `(data, target)`: a `Loader`, or any `DataLoader`. `step` is what happens with every batch, as
    `make_step` makes it by default. After every batch, `scheduler` sets the next learning rate.

    Raises DivergenceError as soon as the loss is seen not to be finite: on the CPU at that batch.
    """
    step = step or make_step(model, device, optimizer)
    model.train()
    total_loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.long, device=device)
    seen, refreshed = 0, time.monotonic()
    with tqdm(train_loader, file=sys.stdout, mininterval=REFRESH, disable=not progress) as bar:
        for batch, (data, target) in enumerate(bar):
            data, target = data.to(device), target.to(device)
            loss, output = step(data, target)
            if scheduler:
                scheduler.step()
            total_loss += loss * len(data)
            correct += (output.argmax(dim=1) == target).sum()
            seen += len(data)
            refresh = time.monotonic() - refreshed > REFRESH or batch + 1 == bar.total
            if (refresh or device.type == "cpu") and not math.isfinite(total_loss.item()):
                raise DivergenceError(f"batch {batch}, learning rate {float(optimizer.param_groups[0]['lr']):.2g}: the loss is "
                                      "not finite; try a lower learning rate")
            if refresh:
                refreshed = time.monotonic()
                bar.set_description(bar_text(total_loss.item() / seen, batch, 100 * correct.item() / seen), refresh=False)
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
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None, precision: torch.dtype = torch.float32,
        progress: bool = True, test_name: str = "Test set", history: list[dict] | None = None,
        after_epoch: Callable[[list[dict]], None] | None = None) -> list[dict]:
    """Train and test for `epochs` epochs; returns the history, one dict per epoch.

    Its keys: `epoch` (from 1), `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, `seconds` (of training).
    A `OneCycleLR` is stepped after every batch, any other scheduler after every epoch. Where there is an `averaged` model,
    it is the one that is tested. `forward` is as `make_step` takes it. A run that goes on passes the `history` until then,
    which grows in place; `after_epoch` is called with it after each epoch.

    Raises DivergenceError as soon as the loss is not finite.
    """
    keep_memory()
    step = make_step(model, device, optimizer, averaged=averaged, forward=forward, precision=precision)
    per_batch = isinstance(scheduler, OneCycleLR)
    history = [] if history is None else history
    for epoch in range(len(history) + 1, epochs + 1):
        if progress:
            print(f"EPOCH: {epoch}")
        started = time.perf_counter()
        try:
            train_loss, train_accuracy = train(model, device, train_loader, optimizer, step=step,
                                               scheduler=scheduler if per_batch else None, progress=progress)
        except DivergenceError as error:
            raise DivergenceError(f"epoch {epoch}, {error}") from None
        seconds = time.perf_counter() - started
        if scheduler and not per_batch:
            scheduler.step()
        test_loss, test_accuracy = test(averaged.module if averaged else model, device, test_loader, name=test_name,
                                        progress=progress)
        history.append({"epoch": epoch, "train_loss": train_loss, "train_accuracy": train_accuracy,
                        "test_loss": test_loss, "test_accuracy": test_accuracy, "seconds": seconds})
        if after_epoch:
            after_epoch(history)
    return history
