"""The benchmark compares pipelines that do the same work, and reports what it measured."""

from concurrent.futures import Future

import pytest
import torch

from src.data import Loader, RandomAffine
from src.evidence import benchmark, tables
from src.experiments import STEPS


@pytest.mark.parametrize("step", STEPS)
def test_the_usual_pipeline_yields_the_same_images(step, mnist):
    _, (images, labels) = mnist
    ours = Loader(images[:300], labels[:300], 128, normalized=STEPS[step].normalized)
    data, target = next(iter(benchmark.usual_loader(ours, workers=0)))
    expected, expected_target = next(iter(ours))
    torch.testing.assert_close(data, expected)
    assert torch.equal(target, expected_target)


def test_the_usual_pipeline_augments_and_shuffles_if_ours_does(mnist):
    _, (images, labels) = mnist
    recipe = STEPS["augmentation"]
    options = {"augment": RandomAffine(**recipe.augmentation), "generator": torch.Generator()}
    ours = Loader(images[:128], labels[:128], 128, **options)
    data, target = next(iter(benchmark.usual_loader(ours, workers=0)))
    plain = next(iter(Loader(images[:128], labels[:128], 128)))[0]
    assert not torch.equal(target, labels[:128]) and target.bincount().equal(
        labels[:128].bincount()
    )
    changed = sum((plain - image).abs().sum((1, 2, 3)).min().item() > 1 for image in data)
    assert changed > 100  # of 128; a small transform may leave an image as it is


class InThisProcess:
    """Stands in for the executor: a new process takes seconds to import torch."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_a_quick_benchmark_measures_every_pipeline_and_records_nothing(monkeypatch, results):
    monkeypatch.setenv("MNIST_REDUCED", "1")
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
