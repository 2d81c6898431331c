"""The loops: `train` one epoch, `test` a model, `fit` it over epochs, and `predict`.

Read `train` and `test` first: they are the loops that every PyTorch tutorial has. `Setup` holds
what a run trains with, and `fit` calls the two for every epoch.
"""

import copy
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from .data import Loader
from .errors import OneLineError

REFRESH = 20  # batches between updates of the progress bar: reading the loss synchronises a GPU


def train(
    model: nn.Module,
    device: torch.device,
    train_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    average: "MovingAverage | None" = None,
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the accuracy in % over the epoch.

    `scheduler` is one that steps after every batch. Raises DivergenceError if the loss is not
    finite.
    """
    model.train()
    meter = Meter(device)
    bar = tqdm(train_loader, file=sys.stdout, mininterval=0.3)
    for data, target in bar:
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()  # sets the learning rate of the next batch
        if average:
            average.update(model)
        meter.add(loss.detach() * len(data), output, target)
        meter.show(bar)
    return meter.means()


@torch.no_grad()
def test(
    model: nn.Module, device: torch.device, test_loader: Iterable, name: str = "Test set"
) -> tuple[float, float]:
    """Print and return the mean loss and the accuracy in %.

    Raises DivergenceError if the loss is not finite.
    """
    model.eval()
    meter = Meter(device)
    for data, target in test_loader:
        data, target = data.to(device), target.to(device)
        output = model(data)
        meter.add(F.nll_loss(output, target, reduction="sum"), output, target)
    loss, accuracy = meter.means()
    print(format_test(loss, meter.correct.item(), meter.seen, name), flush=True)
    return loss, accuracy


class DivergenceError(OneLineError, RuntimeError):
    """The loss is not finite; `experiments.run` sets `record` to the record of the run so far."""

    record: dict | None = None


class Meter:
    """The mean loss and accuracy so far. The sums stay on the device."""

    def __init__(self, device: torch.device):
        self.total_loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.long, device=device)
        self.seen = self.batches = 0

    def add(self, loss_sum: torch.Tensor, output: torch.Tensor, target: torch.Tensor) -> None:
        """Count a batch: the sum of its losses, its outputs (N, 10) and its labels (N,)."""
        self.total_loss += loss_sum
        self.correct += (output.argmax(dim=1) == target).sum()
        self.seen += len(target)
        self.batches += 1

    def means(self) -> tuple[float, float]:
        """The mean loss and the accuracy in %; DivergenceError if the loss is not finite."""
        loss = self.total_loss.item() / self.seen
        if not math.isfinite(loss):
            fault = f"the loss is not finite after {self.batches} batches"
            raise DivergenceError(f"{fault}: lower the learning rate")
        return loss, 100 * self.correct.item() / self.seen

    def show(self, bar: tqdm) -> None:
        """Update the text of a progress bar every `REFRESH` batches, and after the last one."""
        if self.batches % REFRESH == 0 or self.batches == bar.total:
            text = format_progress(self.batches - 1, *self.means())
            bar.set_description(text, refresh=False)


@torch.no_grad()
def predict(
    model: nn.Module, device: torch.device, loader: Iterable
) -> tuple[torch.Tensor, torch.Tensor]:
    """The predicted digit of each of the loader's N images, and its probability.

    Returns int64 and float32 tensors of shape (N,), on the CPU.
    """
    model.eval()
    predictions, confidences = [], []
    for data, _ in loader:
        confidence, prediction = model(data.to(device)).exp().max(dim=1)
        predictions.append(prediction)
        confidences.append(confidence)
    return torch.cat(predictions).cpu(), torch.cat(confidences).cpu()


class MovingAverage:
    """The exponential moving average of a model's weights and buffers, with a warm-up.

    The buffers are the statistics of batch normalisation. `model` is a network with the averages.
    The first update copies the weights. After n ≥ 1 updates, the next one uses the smaller of
    `decay` and (1 + n) / (10 + n), as TensorFlow's ExponentialMovingAverage does: the average soon
    forgets the first weights, which are nearly random. PyTorch's AveragedModel can do the same, but
    reads its counter back from the device in every batch, for which a GPU has to wait.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval()
        self.decay = decay
        self.batches = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the values that `model` has after a batch."""
        n = self.batches
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        averages = [*self.model.parameters(), *self.model.buffers()]  # each once, even if shared
        values = [*model.parameters(), *model.buffers()]
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)  # decay * average + (1 - decay) * value
            else:
                average.copy_(value)  # the number of batches that batch normalisation has seen
        self.batches += 1

    def state_dict(self) -> dict:
        """The averages, and the number of batches."""
        return {"model": self.model.state_dict(), "batches": self.batches}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.batches = state["batches"]


@dataclass
class Setup:
    """What a run trains with, as `experiments.prepare` makes it from a recipe.

    The `average`, if there is one, is tested instead of the model.
    """

    device: torch.device
    model: nn.Module
    train_loader: Loader
    test_loader: Loader
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    average: MovingAverage | None = None
    test_name: str = "Test set"

    @property
    def tested_model(self) -> nn.Module:
        """The model that is tested and returned."""
        return self.average.model if self.average else self.model

    def parts(self) -> dict:
        """The parts that have a state."""
        parts = {
            "model": self.model,
            "train_loader": self.train_loader,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict:
        """All that the next epoch depends on, PyTorch's random generators included."""
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state["generator"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["device_generator"] = torch.cuda.get_rng_state(self.device)
        if self.device.type == "mps":
            state["device_generator"] = torch.mps.get_rng_state()
        return state

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["generator"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_generator"], self.device)
        if self.device.type == "mps":
            torch.mps.set_rng_state(state["device_generator"])


def fit(setup: Setup, epochs: Iterable[int]) -> Iterator[dict]:
    """Train and test for these epochs, counted from 1; yields a dict after each.

    Its keys: `epoch`, `learning_rate` (of the first batch), `train_loss`, `train_accuracy`,
    `test_loss`, `test_accuracy`, `seconds` (of training). Accuracies are in %. `OneCycleLR` and
    `CyclicLR` step after every batch, any other scheduler after every epoch. Raises DivergenceError
    if a loss is not finite.
    """
    model, device, optimizer = setup.model, setup.device, setup.optimizer
    steps_every_batch = isinstance(setup.scheduler, (OneCycleLR, CyclicLR))
    for epoch in epochs:
        print(f"EPOCH: {epoch}")
        started = time.perf_counter()
        learning_rate = optimizer.param_groups[0]["lr"]
        scheduler = setup.scheduler if steps_every_batch else None
        train_loss, train_accuracy = train(
            model, device, setup.train_loader, optimizer, scheduler, setup.average
        )
        seconds = time.perf_counter() - started
        if setup.scheduler and not steps_every_batch:
            setup.scheduler.step()
        test_loss, test_accuracy = test(
            setup.tested_model, device, setup.test_loader, setup.test_name
        )
        yield {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "seconds": seconds,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }


def format_summary(history: Sequence[Mapping]) -> str:
    """The line after the last epoch: its accuracy, and the lowest of the last five, in %."""
    accuracies = [epoch["test_accuracy"] for epoch in history]
    text = f"After epoch {len(accuracies)}: {accuracies[-1]:.2f} %"
    if len(accuracies) >= 5:
        text += f". Lowest of the last five epochs: {min(accuracies[-5:]):.2f} %"
    return text


def format_progress(batch: int, loss: float, accuracy: float) -> str:
    """The text before the progress bar: loss and accuracy (in %) are means over the epoch."""
    return f"Loss={loss:.4f} Batch_id={batch} Accuracy={accuracy:.2f}"


def format_test(loss: float, correct: int, count: int, name: str = "Test set") -> str:
    """The line after each epoch."""
    accuracy = f"{correct}/{count} ({100 * correct / count:.2f}%)"
    return f"{name}: Average loss: {loss:.4f}, Accuracy: {accuracy}"
