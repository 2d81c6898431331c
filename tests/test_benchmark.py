"""The benchmark compares pipelines that do the same work, and reports what it measured."""

from concurrent.futures import Executor, Future

import pytest
import torch

from src.data import Loader, RandomAffine, normalize
from src.evidence import benchmark, tables
from src.experiments import AUGMENTATION


@pytest.mark.parametrize("normalized", [False, True])
def test_the_usual_pipeline_yields_the_same_images(normalized, mnist):
    images, labels = (part[:128] for part in mnist[1])
    ours = Loader(images, labels, 128, normalized=normalized)
    usual, target = next(iter(benchmark.usual_loader(ours, workers=0)))
    torch.testing.assert_close(usual, next(iter(ours))[0])
    assert torch.equal(target, labels)


def test_the_usual_pipeline_augments_and_shuffles_if_ours_does(mnist):
    images, labels = (part[:128] for part in mnist[1])
    augment = RandomAffine(**AUGMENTATION.augmentation)
    ours = Loader(images, labels, 128, torch.Generator(), augment)
    usual, target = next(iter(benchmark.usual_loader(ours, workers=0)))
    assert not torch.equal(target, labels) and target.bincount().equal(labels.bincount())
    plain = normalize(images)
    changed = sum((plain - image).abs().sum((1, 2, 3)).min().item() > 1 for image in usual)
    assert changed > 100  # of 128; a small transform may leave an image as it is


class InThisProcess(Executor):
    """Stands in for the executor: a new process takes seconds to import torch."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_a_quick_benchmark_measures_every_pipeline_and_records_nothing(monkeypatch, smoke, results):
    usual = benchmark.usual_loader
    monkeypatch.setattr(benchmark, "usual_loader", lambda ours: usual(ours, workers=0))
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(benchmark, "pick_precision", lambda device: "bfloat16")
    record = benchmark.benchmark(["basic"], turns=1, quick=True, device="cpu")
    assert list(record["seconds"]["basic"]) == [benchmark.USUAL, *benchmark.OURS]
    assert all(seconds > 0 for runs in record["seconds"]["basic"].values() for seconds in runs)
    rows = tables.speed_table(record).splitlines()[2:]
    assert len(rows) == 3 and rows[0].endswith("| 1.0 (1.0 to 1.0) |")
    assert not any(results.iterdir())
