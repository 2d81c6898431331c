"""The loops: `train` one epoch, `test` a model, `fit` it over epochs, and `predict`.

Read `train` and `test` first: they are the loops that every PyTorch tutorial has. `Setup` holds
what a run trains with, and `fit` calls the two for every epoch.
"""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .data import Loader

REFRESH = 20  # batches between updates of the progress bar: reading the loss synchronises a GPU


def train(
    model: nn.Module,
    device: torch.device,
    train_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    averaged: AveragedModel | None = None,
    precision: str = "float32",
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the accuracy in % over the epoch."""
    model.train()
    meter, bar = Meter(device), tqdm(train_loader, file=sys.stdout, mininterval=0.3)
    for data, target in bar:
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(data)
            loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()  # sets the learning rate of the next batch
        if averaged:
            averaged.update_parameters(model)
        meter.add(loss.detach() * len(data), output, target)
        meter.show(bar, optimizer.param_groups[0]["lr"])
    return meter.means()


@torch.no_grad()
def test(
    model: nn.Module, device: torch.device, test_loader: Iterable, name: str = "Test set"
) -> tuple[float, float]:
    """Print and return the mean loss and the accuracy in %, computed in float32."""
    model.eval()
    meter = Meter(device)
    for data, target in test_loader:
        data, target = data.to(device), target.to(device)
        output = model(data)
        meter.add(F.nll_loss(output, target, reduction="sum"), output, target)
    loss, accuracy = meter.means()
    print(format_test(loss, meter.correct.item(), meter.seen, name), flush=True)
    return loss, accuracy


class DivergenceError(RuntimeError):
    """The loss is not finite; `experiments.run` sets `record` to the record of the run so far."""

    record: dict | None = None


class Meter:
    """The mean loss and accuracy so far. The sums stay on the device."""

    def __init__(self, device: torch.device):
        self.total_loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.long, device=device)
        self.seen = self.batches = 0

    def add(self, loss: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        """Count a batch: the sum of its losses, its outputs (N, 10) and its labels (N,)."""
        self.total_loss += loss
        self.correct += (output.argmax(dim=1) == target).sum()
        self.seen += len(target)
        self.batches += 1

    def means(self) -> tuple[float, float]:
        """The mean loss and the accuracy in %."""
        return self.total_loss.item() / self.seen, 100 * self.correct.item() / self.seen

    def show(self, bar: tqdm, learning_rate: float) -> None:
        """Update the progress bar now and then; DivergenceError if the loss is not finite."""
        if self.batches % REFRESH and self.batches != bar.total:
            return
        batch = self.batches - 1
        if not math.isfinite(self.total_loss.item()):
            raise DivergenceError(
                f"batch {batch}, learning rate {learning_rate:.2g}: the loss is not finite; try a "
                "lower learning rate"
            )
        bar.set_description(format_progress(batch, *self.means()), refresh=False)


@torch.no_grad()
def predict(
    model: nn.Module, device: torch.device, loader: Iterable
) -> tuple[torch.Tensor, torch.Tensor]:
    """The predicted digit of each of the loader's N images, and its probability.

    Returns int64 and float32 tensors of shape (N,), on the CPU.
    """
    model.eval()
    confidence, prediction = zip(
        *(model(data.to(device)).exp().max(dim=1) for data, _ in loader), strict=True
    )
    return torch.cat(prediction).cpu(), torch.cat(confidence).cpu()


@dataclass
class Setup:
    """What a run trains with, as `experiments.prepare` makes it from a recipe.

    The `averaged` model, if there is one, is the one that is tested.
    """

    device: torch.device
    precision: str
    model: nn.Module
    train_loader: Loader
    test_loader: Loader
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    averaged: AveragedModel | None = None
    test_name: str = "Test set"

    @property
    def tested(self) -> nn.Module:
        """The model that is tested and returned."""
        return self.averaged.module if self.averaged else self.model


def fit(setup: Setup, epochs: Iterable[int]) -> Iterator[dict]:
    """Train and test for these epochs, counted from 1; yields a dict after each.

    Its keys: `epoch`, `learning_rate` (of the first batch), `train_loss`, `train_accuracy`,
    `test_loss`, `test_accuracy`, `seconds` (of training). Accuracies are in %. `OneCycleLR` and
    `CyclicLR` step after every batch, any other scheduler after every epoch.
    """
    model, device, optimizer = setup.model, setup.device, setup.optimizer
    per_batch = isinstance(setup.scheduler, (OneCycleLR, CyclicLR))
    for epoch in epochs:
        print(f"EPOCH: {epoch}")
        started, result = time.perf_counter(), {"epoch": epoch}
        result["learning_rate"] = optimizer.param_groups[0]["lr"]
        scheduler = setup.scheduler if per_batch else None
        result["train_loss"], result["train_accuracy"] = train(
            model, device, setup.train_loader, optimizer, scheduler, setup.averaged, setup.precision
        )
        result["seconds"] = time.perf_counter() - started
        if setup.scheduler and not per_batch:
            setup.scheduler.step()
        result["test_loss"], result["test_accuracy"] = test(
            setup.tested, device, setup.test_loader, setup.test_name
        )
        yield result


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and buffers, with a warm-up.

    After n batches the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage: the average soon forgets the first weights, which are random.
    """

    def update(averages: list[torch.Tensor], values: list[torch.Tensor], n: torch.Tensor) -> None:
        count = int(n)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averages, values, n)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def format_progress(batch: int, loss: float, accuracy: float) -> str:
    """The text before the progress bar: loss and accuracy (in %) are means over the epoch."""
    return f"Loss={loss:.4f} Batch_id={batch} Accuracy={accuracy:.2f}"


def format_test(loss: float, correct: int, count: int, name: str = "Test set") -> str:
    """The line after each epoch."""
    accuracy = f"{correct}/{count} ({100 * correct / count:.2f}%)"
    return f"{name}: Average loss: {loss:.4f}, Accuracy: {accuracy}"
