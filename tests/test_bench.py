"""The benchmark compares pipelines that do the same work, and reports what it measured."""

import json
import re

import torch

from src import bench
from src.data import Loader
from src.experiments import AUGMENTATION, BASIC, REGULARIZATION


def test_the_usual_pipeline_yields_the_same_images(mnist):
    _, (images, labels) = mnist
    for experiment in (BASIC, REGULARIZATION, AUGMENTATION):  # in the test none is augmented
        data, target = next(iter(bench.usual_loader(experiment, train=False, count=300, workers=0)))
        ours, our_target = next(iter(Loader(images, labels, experiment.batch_size, normalized=experiment.normalized)))
        torch.testing.assert_close(data, ours)
        assert torch.equal(target, our_target)


def test_every_switch_of_a_step_with_augmentation_is_measured():
    measured = [bench.VARIANTS[name] for name in bench.variants("augmentation")]
    assert bench.Variant() in measured and all(
        any(getattr(variant, switch) != getattr(bench.Variant(), switch) for variant in measured)
        for switch in ("workers", "float32", "channels_last", "fused", "keep_memory", "redraw", "images", "epochs"))
    assert [name.split(":")[0] for name in bench.variants("basic")] == ["ours", "plain"]


def test_a_quick_benchmark_prints_the_table_and_keeps_nothing(command):
    before = bench.RECORD.read_bytes()
    done = command("-m", "src", "bench", "basic", "--quick", "--turns", "1", "--device", "cpu", MNIST_REDUCED="1")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^\| (ours|plain)[^|]* \|.*\| ([\d.]+) \([\d.]+ to [\d.]+\) \|$", done.stdout, re.MULTILINE))
    assert rows["ours"] == "1.00" and float(rows["plain"]) > 0
    assert "GFLOP/s" in done.stdout
    assert bench.RECORD.read_bytes() == before


def test_the_record_holds_what_the_targets_ask_for():
    record = json.loads(bench.RECORD.read_text(encoding="utf-8"))
    assert record["share"] == 1.0 and list(record["steps"]) == ["basic", "regularization", "augmentation"]
    for step, measured in record["steps"].items():
        assert set(bench.variants(step)) <= set(measured["variants"]) <= set(bench.VARIANTS)
        assert all(len(runs) == record["turns"] for runs in measured["variants"].values())
        ours, usual = (sum(run["seconds"] for run in runs) for name, runs in measured["variants"].items()
                       if name == "ours" or name.startswith(("plain", "original")))
        assert ours < usual
