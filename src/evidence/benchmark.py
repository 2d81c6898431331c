"""The benchmark: an epoch of this package against one of the usual pipeline, side by side.

Each measurement is one epoch, training and testing, in a new process, after a warm-up. Each round
runs both pipelines, so that a drift of the machine's speed affects both alike; ratios are taken
within a round.
"""

import contextlib
import io
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torchvision.datasets.utils import extract_archive
from tqdm import tqdm

from .. import data, store
from ..device import configure, pick_device
from ..experiments import STEPS, prepare
from ..provenance import environment
from ..recipes import Experiment
from ..training import test, train
from . import usual_pipeline

USUAL = f"usual: PIL images, DataLoader with {usual_pipeline.WORKERS} workers"
OURS = "ours"


def measure_ours(experiment: Experiment, _root: Path, share: float, device: str) -> float:
    """The seconds of an epoch, training and testing, after a warm-up on a tenth of the images."""
    setup = prepare(experiment, 1, device)
    warm_up = _take_first(setup.train_loader, share / 10)
    train_loader = _take_first(setup.train_loader, share)
    test_loader = _take_first(setup.test_loader, share)
    parts = {"optimizer": setup.optimizer, "average": setup.average}
    with contextlib.redirect_stdout(io.StringIO()):
        train(setup.model, setup.device, warm_up, **parts)
        started = time.perf_counter()
        train(setup.model, setup.device, train_loader, **parts)
        test(setup.tested_model, setup.device, test_loader)
        return time.perf_counter() - started


def _take_first(loader: data.Loader, share: float) -> data.Loader:
    """A loader of the first part of the images."""
    count = int(len(loader.images) * share)
    return replace(loader, images=loader.images[:count], labels=loader.labels[:count])


PIPELINES = {USUAL: usual_pipeline.measure, OURS: measure_ours}


def benchmark(
    steps: Sequence[str], rounds: int = 3, quick: bool = False, device: str | None = None
) -> dict:
    """Measure both pipelines of these steps, `rounds` times each.

    A `quick` benchmark uses a tenth of the images; any other one of all steps is recorded in
    `bench.json` in `store.OUTPUT`.
    """
    torch_device = pick_device(device)
    configure()
    share = 0.1 if quick else 1.0
    seconds = {step: {name: [] for name in PIPELINES} for step in steps}
    measurements = [(step, name) for step in steps for _ in range(rounds) for name in PIPELINES]
    with TemporaryDirectory() as root:
        extract_mnist(Path(root))
        for step, name in tqdm(measurements, unit="measurement"):
            arguments = STEPS[step], Path(root), share, str(torch_device)
            seconds[step][name].append(_measure_in_new_process(PIPELINES[name], *arguments))
    record = {**environment(torch_device), "rounds": rounds, "share": share, "seconds": seconds}
    if not quick and set(steps) == set(STEPS):
        store.write_text(store.OUTPUT / "bench.json", json.dumps(record) + "\n")
    return record


def load_benchmark(folder: Path) -> dict | None:
    """The benchmark that is recorded in a folder, if there is one."""
    path = folder / "bench.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def extract_mnist(root: Path) -> None:
    """Write MNIST's four files to `root/MNIST/raw`, where torchvision's data set reads them."""
    data.read_mnist(data.MNIST_ROOT)  # checks the archives
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (data.MNIST_ROOT / "MNIST" / "raw").glob("*.gz"):
        extract_archive(str(archive), str(raw))


def _measure_in_new_process(measure: Callable[..., float], *arguments: object) -> float:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(measure, *arguments).result()
