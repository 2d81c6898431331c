"""MNIST as most scripts train it: torchvision's data set, a DataLoader, PyTorch's defaults.

The benchmark measures our package against this. It follows pytorch/examples, mnist/main.py: only
the networks and the hyperparameters are ours, none of the settings, loaders or loops.
"""

import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from ..data import MEAN, STD
from ..recipes import OPTIMIZERS, Experiment, build_model

WORKERS = 2


def make_loaders(
    experiment: Experiment, root: Path, share: float = 1.0, workers: int | None = None
) -> tuple[DataLoader, DataLoader]:
    """DataLoaders of the training and the test images, which transform one PIL image at a time.

    `root` holds `MNIST/raw/` with the extracted files; `share` takes the first part of each set.
    """
    to_tensor = [transforms.ToTensor()]
    if experiment.normalized:
        to_tensor.append(transforms.Normalize((MEAN,), (STD,)))
    augment = _make_augmentation(experiment)
    sets = (
        datasets.MNIST(root, train=True, transform=transforms.Compose([*augment, *to_tensor])),
        datasets.MNIST(root, train=False, transform=transforms.Compose(to_tensor)),
    )
    train_set, test_set = (Subset(data, range(int(len(data) * share))) for data in sets)
    workers = WORKERS if workers is None else workers
    options = {"num_workers": workers, "pin_memory": torch.cuda.is_available()}
    options["persistent_workers"] = workers > 0  # so that their start is part of the warm-up
    return (
        DataLoader(train_set, experiment.batch_size, shuffle=True, **options),
        DataLoader(test_set, batch_size=1000, **options),
    )


def _make_augmentation(experiment: Experiment) -> list[transforms.RandomAffine]:
    if experiment.augmentation is None:
        return []
    arguments = dict(experiment.augmentation)
    mode = transforms.InterpolationMode(arguments.pop("interpolation", "nearest"))
    return [transforms.RandomAffine(**{"degrees": 0, **arguments}, interpolation=mode)]


def train(
    model: nn.Module,
    device: str,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None = None,
) -> None:
    """Train for one epoch."""
    model.train()
    for data, target in batches:
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)


def test(
    model: nn.Module, device: str, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    """The accuracy in %."""
    model.eval()
    correct = count = 0
    with torch.no_grad():
        for data, target in batches:
            data, target = data.to(device), target.to(device)
            prediction = model(data).argmax(dim=1)
            correct += prediction.eq(target).sum().item()
            count += len(target)
    return 100 * correct / count


def measure(experiment: Experiment, root: Path, share: float, device: str) -> float:
    """The seconds of an epoch, training and testing.

    The warm-up trains on a tenth of the batches and tests on all images; it starts the workers.
    """
    train_loader, test_loader = make_loaders(experiment, root, share)
    warm_up = islice(train_loader, len(train_loader) // 10)
    model: nn.Module = build_model(experiment).to(device)
    optimizer = OPTIMIZERS[experiment.optimizer](model.parameters(), **experiment.optimizer_args)
    average = None
    if experiment.ema_decay:
        update = get_ema_multi_avg_fn(experiment.ema_decay)
        average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    train(model, device, warm_up, optimizer, average)
    test(average or model, device, test_loader)
    started = time.perf_counter()
    train(model, device, train_loader, optimizer, average)
    test(average or model, device, test_loader)
    return time.perf_counter() - started
