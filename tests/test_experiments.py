"""Recipes: what they accept, what they refuse, and where their runs are recorded."""

import json
import pickle
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch

from src.evidence import report
from src.experiments import AUGMENTATION, BASIC, OPTIMIZERS, REGULARIZATION, STEPS, RecipeError, run
from src.models import MODELS, count_parameters
from src.store import load_records, record_key

pytestmark = pytest.mark.usefixtures("results")


def test_a_run_is_one_record(tiny):
    _, made = run(tiny, 7, "cpu", progress=False)
    (kept,) = load_records("runs", local=True).values()
    assert kept == json.loads(json.dumps(made))
    precision = kept["recipe"]["precision"]  # what was used, not "auto"
    assert precision in ("float32", "bfloat16")
    assert kept["recipe"] == json.loads(json.dumps(asdict(replace(tiny, precision=precision))))
    assert kept["seed"] == 7 and kept["device"] == "cpu" and len(kept["fingerprint"]) == 8
    names = {"epoch", "learning_rate", "seconds"}
    names |= {f"{part}_{measure}" for part in ("train", "test") for measure in ("loss", "accuracy")}
    assert set(kept["history"][0]) == names
    machine = {"device_name", "threads", "python", "torch", "torchvision", "commit"}
    assert {"seconds", *machine} <= set(kept)


def test_only_publishing_changes_tracked_files(tiny, results, monkeypatch):
    monkeypatch.setitem(STEPS, "basic", tiny)
    other = replace(tiny, batch_size=256)
    for recipe, seed, weights in ((tiny, 2, []), (other, 1, []), (tiny, 1, ["basic.pt"])):
        run(recipe, seed, progress=False)
        assert {path.name for path in results.iterdir()} <= {"local", ".lock", ".checkpoints"}
        assert [path.name for path in (results / "local").glob("*.pt")] == weights
    report.publish()  # what make run does at its end: the unchanged step with seed 1
    assert [record["seed"] for record in load_records("runs").values()] == [1]
    assert (results / "basic.pt").exists() and not list((results / "local").glob("*.pt"))
    assert len(load_records("runs", local=True)) == 2


def test_runs_in_another_precision_or_of_a_changed_model_are_other_runs(tiny, monkeypatch):
    class Wider(MODELS["BasicNet"]):
        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(16, 11)

    for precision in ("float32", "bfloat16"):
        run(replace(tiny, precision=precision), 3, progress=False)
    monkeypatch.setitem(MODELS, "BasicNet", Wider)
    run(replace(tiny, precision="float32"), 3, progress=False)
    assert len(load_records("runs", local=True)) == 3


def test_a_smoke_test_saves_nothing_and_says_that_it_is_one(smoke, results, capsys):
    run(BASIC)
    assert not any(path.is_file() for path in results.rglob("*"))
    assert capsys.readouterr().out.startswith("Smoke test: 2,000 images, and nothing is recorded.")


@pytest.mark.parametrize(
    "step, parameters", [("basic", 10_578), ("regularization", 8_178), ("augmentation", 7_946)]
)
def test_steps_are_within_the_limits(step, parameters):
    experiment = STEPS[step]
    assert experiment.epochs <= 15 and experiment.split == "test"
    model = MODELS[experiment.model](**experiment.model_args)
    assert count_parameters(model) == parameters


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_that_is_offered_trains(optimizer, smoke):
    recipe = replace(BASIC, optimizer=optimizer, optimizer_args={"lr": 0.001})
    _, made = run(recipe, progress=False)
    assert 1 < made["history"][0]["train_loss"] < 2.4  # guessing gives ln 10, 2.30


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("model", "BasicNets", "unknown model 'BasicNets': choose one of BasicNet, Reg"),
        ("model_args", {"dropuot": 0.1}, "unexpected keyword argument 'dropuot'"),
        ("model_args", {"dropout": 1.5}, "model_args={'dropout': 1.5}: dropout probability "),
        ("optimizer", "adam", "unknown optimizer 'adam': choose one of SGD, Adam"),
        ("optimizer_args", {"lr": -0.1}, "optimizer_args={'lr': -0.1}: Invalid learning rate"),
        ("optimizer_args", {"lr": "fast"}, "optimizer_args={'lr': 'fast'}: "),
        ("optimizer_args", {"lr": torch.tensor(1.0)}, "type Tensor is not JSON serializable"),
        ("scheduler", "LambdaLR", "unknown scheduler 'LambdaLR': choose one of StepLR"),
        ("augmentation", {"degree": 7}, "unexpected keyword argument 'degree'"),
        ("augmentation", {"scale": (-1, 1)}, "scale values should be positive"),
        ("augmentation", {"scale": (1.1, 0.9)}, "scale must be a range that rises from above 0"),
        ("augmentation", {"interpolation": "linear"}, "'linear' is not a valid Interpolation"),
        ("epochs", 0, "must be positive integers, got {'epochs': 0, 'batch_size': 128}"),
        ("batch_size", "128", "must be positive integers, got {'epochs': 15, 'batch_size': '128'}"),
        ("normalized", "no", "normalized must be True or False, got 'no'"),
        ("ema_decay", 1, "ema_decay must be None or in (0, 1), got 1"),
        ("split", "train", "split='train': unknown split 'train': choose one of fold 1"),
        ("precision", "half", "precision='half': unknown precision 'half': choose 'auto'"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(field, value, message, smoke):
    with pytest.raises(RecipeError) as raised:
        run(replace(REGULARIZATION, **{field: value}), progress=False)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value._render_traceback_() == [f"RecipeError: {raised.value}"]  # in Jupyter


def test_a_recipe_cannot_be_changed_and_is_the_same_however_it_is_written():
    with pytest.raises(TypeError, match="support item assignment"):
        BASIC.optimizer_args["lr"] = 1
    with pytest.raises(AttributeError, match="read-only"):
        AUGMENTATION.augmentation.update(degrees=7)
    for copied in (pickle.loads(pickle.dumps(AUGMENTATION)), deepcopy(AUGMENTATION)):
        assert copied == AUGMENTATION and hash(copied) == hash(AUGMENTATION)
    as_list = replace(AUGMENTATION, augmentation={**AUGMENTATION.augmentation, "scale": [0.9, 1.1]})
    assert as_list == AUGMENTATION
    assert replace(BASIC, split="fold 6") == replace(BASIC, split="validation")
    one, other = (replace(BASIC, optimizer_args={"lr": rate}) for rate in (1, 1.0))
    rest = {"seed": 1, "device": "cpu", "fingerprint": "0"}
    key, same = (record_key({"recipe": asdict(recipe), **rest}) for recipe in (one, other))
    assert key == same


def test_a_run_that_diverges_stops_at_once_and_is_recorded_as_failed(tiny):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    message = r"batch \d+, learning rate 1e\+09: the loss is not finite; try a lower"
    with pytest.raises(RuntimeError, match=message):
        run(diverging, progress=False)
    (kept,) = load_records("runs", local=True).values()
    assert "batch" in kept["failed"] and kept["history"] == []


@pytest.mark.parametrize("seed", [1.5, "1", -1])
def test_a_seed_that_is_not_a_non_negative_integer_is_refused(seed, smoke):
    with pytest.raises(ValueError, match="the seed must be a non-negative integer"):
        run(BASIC, seed)
