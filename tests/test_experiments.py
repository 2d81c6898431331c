"""Recipes, records and studies."""

import json
from dataclasses import asdict, replace

import pytest

from src import records
from src.experiments import BASIC, REGULARIZATION, STEPS, run
from src.models import MODELS


pytestmark = pytest.mark.usefixtures("results")


def test_a_run_is_one_record(tiny):
    _, made = run(tiny, 7, progress=False)
    (kept,) = records.load("runs").values()
    assert kept == json.loads(json.dumps(made))
    assert kept["recipe"] == json.loads(json.dumps(asdict(tiny))) and kept["seed"] == 7
    assert set(kept["history"][0]) == {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"}
    assert {"seconds", "device", "device_name", "threads", "precision", "python", "torch", "torchvision"} <= set(kept)


def test_a_reduced_run_keeps_nothing(results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    run(BASIC, progress=False)
    assert not any(path.is_file() for path in results.rglob("*"))


@pytest.mark.parametrize("step, limit", [("basic", 10_578), ("regularization", 9_999), ("augmentation", 7_999)])
def test_steps_are_within_the_limits(step, limit):
    experiment = STEPS[step]
    assert experiment.epochs <= 15 and experiment.split == "test"
    assert sum(parameter.numel() for parameter in MODELS[experiment.model](**experiment.model_args).parameters()) <= limit


@pytest.mark.parametrize("optimizer, arguments, scheduler, scheduler_args", [
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}, "CosineAnnealingLR", {"T_max": 15}),
    ("RMSprop", {"lr": 0.001}, "ExponentialLR", {"gamma": 0.9}),
    ("Adam", {"lr": 0.001, "fused": False}, None, {}),
])
def test_a_recipe_takes_torchs_optimizers_and_schedulers(optimizer, arguments, scheduler, scheduler_args, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    _, made = run(replace(BASIC, optimizer=optimizer, optimizer_args=arguments, scheduler=scheduler,
                          scheduler_args=scheduler_args), progress=False)
    assert made["history"][0]["train_loss"] < 2.4


@pytest.mark.parametrize("fields, message", [
    ({"optimiser": "SGD"}, "unknown field of a recipe: 'optimiser'; did you mean 'optimizer'?"),
    ({"model": "BasicNets"}, "unknown model: 'BasicNets'; did you mean 'BasicNet'?"),
    ({"model_args": {"dropuot": 0.1}}, "unknown argument of RegularizedNet: 'dropuot'; did you mean 'dropout'?"),
    ({"model_args": {"dropout": 1.5}}, "between 0 and 1, but got 1.5"),
    ({"optimizer": "adam"}, "unknown optimizer: 'adam'; did you mean 'Adam'?"),
    ({"optimizer_args": {"learning_rate": 0.1}}, "unknown argument of Adam: 'learning_rate'"),
    ({"optimizer_args": {"lr": -0.1}}, "Invalid learning rate: -0.1"),
    ({"scheduler": "StepLr"}, "unknown scheduler: 'StepLr'; did you mean 'StepLR'?"),
    ({"scheduler_args": {"stepsize": 5}}, "unknown argument of StepLR: 'stepsize'; did you mean 'step_size'?"),
    ({"augmentation": {"degree": 7}}, "unknown argument of RandomAffine: 'degree'; did you mean 'degrees'?"),
    ({"augmentation": {"interpolation": "linear"}}, "unknown interpolation 'linear': it is 'nearest', 'bilinear' or 'bicubic'"),
    ({"epochs": 0}, "epochs is 0: it is a whole number of at least 1"),
    ({"epochs": 1.5}, "epochs is 1.5: it is a whole number of at least 1"),
    ({"batch_size": "128"}, "batch_size is '128': it is a whole number of at least 1"),
    ({"batch_size": 60_001}, "batch_size is 60001: there are 2000 training images"),
    ({"ema_decay": 1}, "ema_decay is 1: it lies between 0 and 1, or is None"),
    ({"split": "train"}, "unknown split 'train': it is 'test' or 'validation'"),
    ({"precision": "half"}, "unknown precision 'half': it is 'auto', 'float32' or 'bfloat16'"),
])
def test_what_is_wrong_in_a_recipe_is_refused_in_one_line(fields, message, results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    with pytest.raises(ValueError) as raised:
        run(replace(REGULARIZATION, **fields), progress=False)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert list(results.iterdir()) == []


def test_a_run_that_diverges_stops_at_once_and_is_recorded_as_failed(tiny):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    with pytest.raises(RuntimeError, match=r"epoch 1, batch \d, learning rate 1e\+09: the loss is not finite; try a lower"):
        run(diverging, progress=False)
    (kept,) = records.load("runs").values()
    assert "batch" in kept["failed"] and kept["history"] == []


@pytest.mark.parametrize("seed", [1.5, "1", -1, None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="the seed is .*: it is a whole number of at least 0"):
        run(BASIC, seed)
