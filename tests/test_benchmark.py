"""The benchmark compares pipelines that do the same work, and reports what it measured."""

import pytest
import torch

from src.data import Loader
from src.evidence import benchmark
from src.experiments import AUGMENTATION, BASIC, REGULARIZATION


@pytest.mark.parametrize(
    "experiment", [BASIC, REGULARIZATION, AUGMENTATION], ids=lambda experiment: experiment.name
)
def test_the_usual_pipeline_yields_the_same_images(experiment, mnist):
    _, (images, labels) = mnist  # test images: not augmented
    data, target = next(
        iter(benchmark.usual_loader(experiment, train=False, share=0.03, workers=0))
    )
    ours, our_target = next(
        iter(Loader(images, labels, experiment.batch_size, normalized=experiment.normalized))
    )
    torch.testing.assert_close(data, ours)
    assert torch.equal(target, our_target)


def test_every_switch_is_measured():
    measured = [benchmark.VARIANTS[name] for name in benchmark.variants("augmentation")]
    assert benchmark.Variant() in measured and all(
        any(
            getattr(variant, switch) != getattr(benchmark.Variant(), switch) for variant in measured
        )
        for switch in ("workers", "float32", "fused", "tuned_malloc", "read_loss", "images")
    )
    assert [name.split(":")[0] for name in benchmark.variants("basic")] == ["ours", "plain"]


def test_a_quick_benchmark_measures_every_variant_and_records_nothing(monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setattr(
        benchmark,
        "usual_loader",
        lambda experiment, train, share, workers: [
            (torch.rand(128, 1, 28, 28), torch.zeros(128, dtype=torch.long))
        ],
    )
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", lambda *_, **__: InThisProcess())
    monkeypatch.setattr(benchmark.training, "REFRESH", 0.3)
    before = benchmark.RECORD.read_bytes()
    monkeypatch.delitem(benchmark.VARIANTS, "ours with torch.compile")
    record = benchmark.benchmark(["augmentation"], turns=1, quick=True, device="cpu")
    rows = benchmark.table(record).splitlines()[2:-2]
    assert len(rows) == len(benchmark.variants("augmentation")) and rows[0].endswith(
        "| 1.00 (1.00 to 1.00) |"
    )
    assert all(
        run["seconds"] > 0 and run["memory"] > 100
        for runs in record["steps"]["augmentation"].values()
        for run in runs
    )
    assert benchmark.RECORD.read_bytes() == before


class InThisProcess:
    """Stands in for the executor: a new process takes seconds to import torch."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future


def test_the_recorded_benchmark_is_complete_and_ours_is_faster():
    record = benchmark.load()
    assert record["share"] == 1.0 and list(record["steps"]) == [
        "basic",
        "regularization",
        "augmentation",
    ]
    for step, measured in record["steps"].items():
        assert set(benchmark.variants(step)) <= set(measured) <= set(benchmark.VARIANTS)
        assert all(len(runs) == record["turns"] for runs in measured.values())
        (usual,) = [
            values
            for name, values in benchmark.ratios(record, step).items()
            if name.startswith(("plain", "original"))
        ]
        assert min(usual) > 1
