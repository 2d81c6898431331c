"""Recipes, records and studies."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest
import torch

from src import experiments, records
from src.experiments import BASIC, STEPS, STUDIES, Experiment, Study, load_model, missing, run, run_studies, study_records
from src.models import MODELS


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Records of a test go to a folder of its own."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """An experiment of a second that is recorded: 2,000 images, one epoch, without being a reduced run."""
    load = experiments.load_mnist
    monkeypatch.setattr(experiments, "load_mnist",
                        lambda *where: tuple((images[:2000], labels[:2000]) for images, labels in load(*where)))
    return replace(BASIC, epochs=1)


def record(seed, name="a", **recipe):
    return {"recipe": {"name": name, **recipe}, "seed": seed, "history": [seed]}


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
    assert list(results.iterdir()) == []


def test_the_same_run_again_takes_the_place_of_its_record():
    records.save("runs", record(1, lr=0.1))
    records.save("runs", record(2, lr=0.1))
    records.save("runs", {**record(1, lr=0.1, name="b"), "history": ["new"]})
    assert [kept["history"] for kept in records.load("runs").values()] == [["new"], [2]]


def test_records_saved_at_once_are_all_kept():
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: records.save("runs", record(seed)), range(40)))
    assert sorted(kept["seed"] for kept in records.load("runs").values()) == list(range(40))


def test_a_reduced_study_keeps_nothing(results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=1))
    run_studies(["one"], jobs=1)
    assert list(results.iterdir()) == []


def test_a_study_runs_what_is_missing_and_shares_common_runs(tiny, monkeypatch):
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": tiny, "b": replace(tiny, batch_size=256)}, seeds=2))
    monkeypatch.setitem(STUDIES, "two", Study("?", "x", {"same as a": replace(tiny, name="other")}, seeds=1))
    assert len(missing(["one", "two"])) == 4
    run_studies(["two"], jobs=1)
    assert len(missing(["one"])) == 3
    with pytest.raises(RuntimeError, match="'one' is not complete: python -m src study one"):
        study_records("one")
    run_studies(["one"], jobs=1)
    assert missing(["one", "two"]) == []
    assert [[record["seed"] for record in runs] for runs in study_records("one").values()] == [[1, 2], [1, 2]]
    assert len(missing(["two"], seeds=3)) == 1


def test_a_record_from_before_a_field_was_added_still_counts(monkeypatch):
    old = {"recipe": asdict(BASIC), "seed": 1, "history": []}
    del old["recipe"]["precision"]
    records.save("study", old)
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", {"a": BASIC}, seeds=1))
    assert missing(["one"]) == []


@pytest.mark.parametrize("name", STUDIES)
def test_selection_never_looks_at_the_test_set(name):
    assert all(experiment.split == "validation" for experiment in STUDIES[name].experiments.values())


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


def test_unknown_field_of_a_recipe_is_refused():
    with pytest.raises(TypeError, match="learning_rate"):
        Experiment("mine", "BasicNet", learning_rate=0.1)


@pytest.mark.parametrize("step", STEPS)
def test_committed_weights_give_the_recorded_accuracy(step, mnist, monkeypatch):
    monkeypatch.undo()
    from src.data import Loader
    from src.report import shown
    from src.training import test
    loader = Loader(*mnist[1], normalized=STEPS[step].normalized)
    _, accuracy = test(load_model(step), torch.device("cpu"), loader, progress=False)
    # Another processor may round otherwise, and read an image or two differently.
    assert accuracy == pytest.approx(shown(step)["history"][-1]["test_accuracy"], abs=0.02)
