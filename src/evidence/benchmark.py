"""The benchmark: an epoch of this package against one of the usual pipeline, side by side.

Each measurement is one epoch, training and testing, in a new process, after a warm-up of a few
batches. Each round runs every pipeline, so that a drift of the machine's speed affects all alike;
ratios are taken within a round.
"""

import contextlib
import io
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from tqdm import tqdm

from .. import store
from ..data import MEAN, STD, Loader
from ..device import environment, pick_device, pick_precision, tune_malloc
from ..experiments import STEPS, prepare, smoke_test_epochs
from ..training import test, train

USUAL = "usual: PIL images, DataLoader with 2 workers"
OURS = {"ours, float32": "float32", "ours, bfloat16": "bfloat16"}


class PilImages(Dataset):
    """MNIST as torchvision.datasets.MNIST yields it: PIL images, transformed one at a time."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: transforms.Compose):
        self.images = images.cpu().mul(255).round().byte().squeeze(1).numpy()
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual_loader(loader: Loader, workers: int = 2) -> DataLoader:
    """The usual DataLoader for the images of ours: it transforms one PIL image at a time."""
    steps = [loader.augment] if loader.augment else []
    steps.append(transforms.ToTensor())
    if loader.normalized:
        steps.append(transforms.Normalize((MEAN,), (STD,)))
    images = PilImages(loader.images, loader.labels, transforms.Compose(steps))
    shuffle = loader.generator is not None
    return DataLoader(images, loader.batch_size, shuffle=shuffle, num_workers=workers)


def measure(step: str, pipeline: str, device: str | None, share: float) -> float:
    """The seconds of an epoch, training and testing, with a share of the images."""
    experiment = replace(STEPS[step], precision=OURS.get(pipeline, "float32"))
    if pipeline == USUAL:
        arguments = {**experiment.optimizer_args, "fused": False}
        experiment = replace(experiment, optimizer_args=arguments)
    else:
        tune_malloc()
    setup = prepare(experiment, 1, device)
    loaders = setup.train_loader, setup.test_loader
    for loader in loaders:
        size = int(len(loader.images) * share)
        loader.images, loader.labels = loader.images[:size], loader.labels[:size]
    warm_up = Loader(torch.rand(1280, 1, 28, 28), torch.zeros(1280, dtype=torch.long), 128)
    if pipeline == USUAL:
        loaders = [usual_loader(loader) for loader in loaders]
    others = setup.optimizer, None, setup.averaged, setup.precision
    with contextlib.redirect_stdout(io.StringIO()):
        train(setup.model, setup.device, warm_up, *others)
        started = time.perf_counter()
        train(setup.model, setup.device, loaders[0], *others)
        test(setup.tested, setup.device, loaders[1])
        return time.perf_counter() - started


def benchmark(
    steps: Sequence[str], turns: int = 3, quick: bool = False, device: str | None = None
) -> dict:
    """Measure every pipeline of these steps, `turns` times each.

    bfloat16 is measured where the device has instructions for it. A `quick` benchmark uses a tenth
    of the images; any other one of all steps is recorded in `results/local/bench.json`.
    """
    picked, share = pick_device(device), 0.1 if quick else 1.0
    precisions = "float32", pick_precision(picked)
    pipelines = [USUAL, *(name for name, used in OURS.items() if used in precisions)]
    seconds = {step: {name: [] for name in pipelines} for step in steps}
    todo = [(step, name) for step in steps for _ in range(turns) for name in pipelines]
    for step, name in tqdm(todo, unit="measurement"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            done = process.submit(measure, step, name, device, share)
            seconds[step][name].append(done.result())
    record = {**environment(picked), "turns": turns, "share": share, "seconds": seconds}
    if not quick and not smoke_test_epochs() and list(steps) == list(STEPS):
        with store.atomic_write(store.results_path("bench.json", local=True)) as temporary:
            temporary.write_text(json.dumps(record) + "\n", encoding="utf-8", newline="\n")
    return record
