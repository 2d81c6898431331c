"""The benchmark compares pipelines that do the same work, and reports what it measured."""

import time
from multiprocessing.process import BaseProcess
from types import SimpleNamespace

import pytest
import torch

from src.data import normalize
from src.evidence import benchmark, tables, usual_pipeline
from src.experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """MNIST as torchvision's data set reads it."""
    folder = tmp_path_factory.mktemp("mnist")
    benchmark.extract_mnist(folder)
    return folder


@pytest.mark.parametrize("experiment", [BASIC, REGULARIZATION], ids=lambda recipe: recipe.name)
def test_the_usual_pipeline_trains_on_the_same_images(experiment, root, mnist):
    train_loader, test_loader = usual_pipeline.make_loaders(experiment, root, workers=0)
    assert len(train_loader.dataset) == 60_000 and train_loader.batch_size == 128
    data, target = next(iter(test_loader))
    images, labels = (part[: len(data)] for part in mnist[1])
    torch.testing.assert_close(data, normalize(images) if experiment.normalized else images)
    assert torch.equal(target, labels)


def test_the_usual_pipeline_augments_and_shuffles(root, mnist):
    train_loader, _ = usual_pipeline.make_loaders(AUGMENTATION, root, share=0.002, workers=0)
    images, labels = (part[:120] for part in mnist[0])
    data, target = next(iter(train_loader))
    assert not torch.equal(target, labels) and target.bincount().equal(labels.bincount())
    plain = normalize(images)
    changes = [(plain - image).abs().sum((1, 2, 3)).min().item() for image in data]
    assert sum(change > 1 for change in changes) > 95  # a small transform may change nothing


def test_a_quick_benchmark_measures_both_pipelines_and_records_nothing(monkeypatch, output):
    def measure_here(measure, experiment, root, share, device):  # a process takes seconds to start
        return measure(experiment, root, share / 5, device)

    monkeypatch.setattr(benchmark, "_measure_in_new_process", measure_here)
    monkeypatch.setattr(usual_pipeline, "WORKERS", 0)
    record = benchmark.benchmark(["augmentation"], rounds=1, quick=True, device="cpu")
    seconds = record["seconds"]["augmentation"]
    assert list(seconds) == [benchmark.USUAL, benchmark.OURS]
    assert all(second > 0 for runs in seconds.values() for second in runs)
    rows = tables.speed_table(record).splitlines()[2:]
    assert len(rows) == 2 and rows[0].endswith("| 1.0 (1.0 to 1.0) |")
    assert not output.exists()


def test_only_a_whole_benchmark_of_all_steps_is_recorded(output, monkeypatch):
    monkeypatch.setattr(benchmark, "extract_mnist", lambda _: None)
    monkeypatch.setattr(benchmark, "_measure_in_new_process", lambda *_: 1.0)
    for steps, quick in ((["basic"], False), ([*STEPS], True), ([*STEPS], False)):
        benchmark.benchmark(steps, 1, quick, "cpu")
        assert (output / "bench.json").exists() == (steps == [*STEPS] and not quick)


def test_all_images_are_measured_and_the_average_is_part_of_it(monkeypatch):
    calls = []
    count = lambda *args, **parts: calls.append((len(args[2].images), bool(parts.get("average"))))
    monkeypatch.setattr(benchmark, "train", count)
    monkeypatch.setattr(benchmark, "test", count)
    benchmark.measure_ours(AUGMENTATION, None, 0.1, "cpu")
    assert calls == [(600, True), (6_000, True), (1_000, False)]  # warm-up, training, test


def test_a_quick_benchmark_gives_the_seconds_of_a_whole_epoch():
    seconds = {"basic": {benchmark.USUAL: [3.0, 3.0], benchmark.OURS: [1.0, 1.5]}}
    machine = {"device_name": "x", "threads": 2, "torch": "2"}
    table = tables.speed_table({**machine, "rounds": 2, "share": 0.1, "seconds": seconds})
    assert "| 12.5 | 5,600 | 2.5 (2.0 to 3.0) |" in table


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 and newer
def test_the_measured_epoch_of_the_usual_pipeline_starts_no_worker(monkeypatch, root):
    """Where workers are spawned, each imports PyTorch for seconds."""
    workers, counts = [], []
    start = BaseProcess.start

    def count_worker(process):
        workers.append(process)
        start(process)

    def read_clock():
        counts.append(len(workers))
        return time.perf_counter()

    monkeypatch.setattr(BaseProcess, "start", count_worker)
    monkeypatch.setattr(usual_pipeline, "time", SimpleNamespace(perf_counter=read_clock))
    monkeypatch.setattr(usual_pipeline, "WORKERS", 1)
    assert usual_pipeline.measure(BASIC, root, 0.01, "cpu") > 0
    assert counts == [2, 2]  # for the training and the test images
