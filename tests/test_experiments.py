"""Recipes: what they accept, and where their runs are recorded."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from src.experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS, moving_average, run
from src.models import MODELS
from src.records import load_records

pytestmark = pytest.mark.usefixtures("results")


def test_a_run_is_one_record(tiny):
    _, made = run(tiny, 7, "cpu", progress=False)
    (kept,) = load_records("local").values()
    assert kept == json.loads(json.dumps(made))
    assert kept["recipe"]["precision"] in ("float32", "bfloat16")  # what was used, not "auto"
    assert kept["recipe"] == json.loads(
        json.dumps(asdict(replace(tiny, precision=kept["recipe"]["precision"])))
    )
    assert kept["seed"] == 7 and kept["device"] == "cpu" and len(kept["fingerprint"]) == 8
    assert set(kept["history"][0]) == {
        "epoch",
        "learning_rate",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "seconds",
    }
    assert {"seconds", "device_name", "threads", "python", "torch", "torchvision"} <= set(kept)


def test_only_an_unchanged_step_with_seed_1_writes_tracked_files(tiny, results, monkeypatch):
    monkeypatch.setitem(STEPS, "basic", tiny)
    run(tiny, 2, progress=False)
    run(replace(tiny, batch_size=256), 1, progress=False)
    run(replace(tiny, name="mine"), 1, progress=False)
    assert (
        not (results / "runs.jsonl").exists()
        and not list(results.glob("*.pt"))
        and len(load_records("local")) == 3
    )
    run(tiny, 1, progress=False)
    assert len(load_records("runs")) == 1 and (results / "basic.pt").exists()


def test_runs_in_another_precision_or_of_a_changed_model_are_other_runs(tiny, monkeypatch):
    class Wider(MODELS["BasicNet"]):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(16, 11)

    for precision in ("float32", "bfloat16"):
        run(replace(tiny, precision=precision), 3, progress=False)
    monkeypatch.setitem(MODELS, "BasicNet", Wider)
    run(replace(tiny, precision="float32"), 3, progress=False)
    assert len(load_records("local")) == 3


def test_a_smoke_test_saves_nothing(results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    run(BASIC, progress=False)
    assert not any(path.is_file() for path in results.rglob("*"))


@pytest.mark.parametrize(
    "step, limit", [("basic", 10_578), ("regularization", 9_999), ("augmentation", 7_999)]
)
def test_steps_are_within_the_limits(step, limit):
    experiment = STEPS[step]
    assert experiment.epochs <= 15 and experiment.split == "test"
    assert (
        sum(
            parameter.numel()
            for parameter in MODELS[experiment.model](**experiment.model_args).parameters()
        )
        <= limit
    )


@pytest.mark.parametrize(
    "optimizer, arguments, scheduler, scheduler_args",
    [
        (
            "SGD",
            {"lr": 0.01, "momentum": 0.9, "nesterov": True},
            "CosineAnnealingLR",
            {"T_max": 15},
        ),
        ("RMSprop", {"lr": 0.001}, "ExponentialLR", {"gamma": 0.9}),
        ("Adam", {"lr": 0.001, "fused": False}, None, {}),
    ],
)
def test_a_recipe_takes_pytorchs_optimizers_and_schedulers(
    optimizer, arguments, scheduler, scheduler_args, monkeypatch
):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    _, made = run(
        replace(
            BASIC,
            optimizer=optimizer,
            optimizer_args=arguments,
            scheduler=scheduler,
            scheduler_args=scheduler_args,
        ),
        progress=False,
    )
    assert made["history"][0]["train_loss"] < 2.4


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"optimiser": "SGD"}, "unexpected keyword argument 'optimiser'"),
        (
            {"model": "BasicNets"},
            "unknown model 'BasicNets': choose one of BasicNet, RegularizedNet, AugmentedNet",
        ),
        ({"model_args": {"dropuot": 0.1}}, "unexpected keyword argument 'dropuot'"),
        ({"model_args": {"dropout": 1.5}}, "between 0 and 1, but got 1.5"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam': choose one of"),
        ({"optimizer_args": {"learning_rate": 0.1}}, "unexpected keyword argument 'learning_rate'"),
        ({"optimizer_args": {"lr": -0.1}}, "Invalid learning rate: -0.1"),
        ({"scheduler": "StepLr"}, "unknown scheduler 'StepLr': choose one of LambdaLR"),
        ({"scheduler_args": {"stepsize": 5}}, "unexpected keyword argument 'stepsize'"),
        ({"augmentation": {"degree": 7}}, "unexpected keyword argument 'degree'"),
        (
            {"augmentation": {"interpolation": "linear"}},
            "expected mode to be 'bilinear', 'nearest'",
        ),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs must be a positive integer, got 1.5"),
        ({"batch_size": "128"}, "batch_size must be a positive integer, got '128'"),
        ({"ema_decay": 1}, "ema_decay must be between 0 and 1, or None, got 1"),
        ({"split": "train"}, "unknown split 'train': choose 'test' or 'validation'"),
        ({"precision": "half"}, "unknown precision 'half': choose 'auto', 'float32' or 'bfloat16'"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(fields, message, results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    with pytest.raises((ValueError, TypeError)) as raised:
        run(replace(REGULARIZATION, **fields), progress=False)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not any(path.is_file() for path in results.rglob("*"))


def test_a_run_that_diverges_stops_at_once_and_is_recorded_as_failed(tiny):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    with pytest.raises(
        RuntimeError, match=r"batch \d+, learning rate 1e\+09: the loss is not finite; try a lower"
    ):
        run(diverging, progress=False)
    (kept,) = load_records("local").values()
    assert "batch" in kept["failed"] and kept["history"] == []


@pytest.mark.parametrize("seed", [1.5, "1", -1, None])
def test_a_seed_that_is_not_a_non_negative_integer_is_refused(seed):
    with pytest.raises(ValueError, match="the seed must be a non-negative integer"):
        run(BASIC, seed, progress=False)


def test_the_moving_average_warms_up_to_its_decay():
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=moving_average(0.9))
    generator, expected = torch.Generator().manual_seed(1), None
    for n in range(200):
        value = torch.rand((), generator=generator)
        torch.nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert averaged.module.weight.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_average_is_useful_after_one_epoch(tiny):
    _, made = run(
        replace(AUGMENTATION, epochs=2), 1, "cpu", progress=False
    )  # of 2,000 images: 32 batches in all
    assert made["history"][-1]["test_accuracy"] > 60
