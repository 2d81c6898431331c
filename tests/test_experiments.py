"""A run is recorded once, with all that identifies it; publishing appends it to the evidence."""

import json
import re
from dataclasses import asdict, replace

import pytest
import torch
from conftest import IMAGES

from src import experiments, provenance, store
from src.data import Loader
from src.errors import FileError, InputError
from src.evidence.publish import publish
from src.experiments import AUGMENTATION, BASIC, STEPS, load_model, run
from src.models import BasicNet
from src.store import load_records
from src.training import DivergenceError, predict


def test_a_run_is_one_record(tiny, output, capsys):
    model, record = run(tiny, 7, "cpu", verbose=False)
    assert capsys.readouterr().out == ""
    (recorded,) = load_records(output / "runs.jsonl").values()
    assert recorded == json.loads(json.dumps(record))
    assert recorded["recipe"] == json.loads(json.dumps(asdict(tiny)))
    assert recorded["seed"] == 7 and recorded["device"] == "cpu"
    names = {"epoch", "learning_rate", "seconds"}
    names |= {f"{part}_{measure}" for part in ("train", "test") for measure in ("loss", "accuracy")}
    assert set(recorded["history"][0]) == names
    machine = {"device_name", "threads", "python", "torch", "torchvision", "commit"}
    assert {"seconds", "finished", "train_size", "test_size", *machine} <= set(recorded)


def test_a_record_names_the_misclassified_images_of_the_last_epoch(tiny, output, mnist):
    model, record = run(tiny, 1, "cpu", verbose=False)
    images, labels = (part[:IMAGES] for part in mnist[1])
    predictions, _ = predict(model, torch.device("cpu"), Loader(images, labels, normalized=False))
    wrong = (predictions != labels).nonzero().flatten().tolist()
    assert record["errors"] == [[index, predictions[index].item()] for index in wrong]
    assert len(wrong) == round(IMAGES * (1 - record["history"][-1]["test_accuracy"] / 100))


def test_only_publishing_changes_the_evidence(tiny, output, evidence, monkeypatch):
    monkeypatch.setitem(STEPS, "basic", tiny)
    other = replace(tiny, batch_size=256)
    for recipe, seed, weights in ((tiny, 2, []), (other, 1, []), (tiny, 1, ["basic.pt"])):
        run(recipe, seed, verbose=False)
        assert [path.name for path in output.glob("*.pt")] == weights
    assert not any(evidence.iterdir())
    for _ in range(2):  # the second time, nothing is new
        publish()
        (record,) = (evidence / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(record)["seed"] == 1  # the unchanged step
    assert (evidence / "basic.pt").read_bytes() == (output / "basic.pt").read_bytes()
    assert len(load_records(output / "runs.jsonl")) == 3


def test_only_the_newest_run_of_a_step_is_published(tiny, output, evidence, monkeypatch):
    monkeypatch.setitem(STEPS, "basic", tiny)
    _, record = run(tiny, verbose=False)
    newest = {**record, "torch": "2.9.1", "finished": "2999-01-01T00:00:00+00:00"}
    store.append_records(output / "runs.jsonl", [newest])
    for _ in range(2):
        publish()
        (published,) = load_records(evidence / "runs.jsonl").values()
        assert published["torch"] == "2.9.1"


def test_an_older_run_of_a_step_does_not_replace_a_published_one(
    tiny, output, evidence, monkeypatch
):
    monkeypatch.setitem(STEPS, "basic", tiny)
    _, record = run(tiny, verbose=False)
    newer = {**record, "finished": "2999-01-01T00:00:00+00:00"}  # from another machine
    store.append_records(evidence / "runs.jsonl", [newer])
    publish()
    assert [*load_records(evidence / "runs.jsonl").values()] == [newer]
    assert not (evidence / "basic.pt").exists()


def test_only_a_benchmark_of_committed_code_is_published(output, evidence, capsys):
    own = output / "bench.json"
    for commit, published in (("0123456789-dirty", False), ("0123456789", True)):
        output.mkdir(exist_ok=True)
        own.write_text(json.dumps({"commit": commit}), encoding="utf-8")
        publish()
        assert (evidence / "bench.json").exists() == published != own.exists()
    assert "not published: the benchmark, made with uncommitted code" in capsys.readouterr().err


def test_the_evidence_is_not_published_onto_itself(evidence, monkeypatch):
    monkeypatch.setattr(store, "OUTPUT", evidence)
    with pytest.raises(ValueError, match="MNIST_RESULTS is the folder of the evidence"):
        publish()


def test_a_run_of_a_step_that_diverges_is_recorded_and_not_published(
    tiny, output, evidence, monkeypatch
):
    diverging = replace(tiny, optimizer="SGD", optimizer_args={"lr": 1e9})
    monkeypatch.setitem(STEPS, "basic", diverging)
    with pytest.raises(DivergenceError, match="the loss is not finite") as raised:
        run(diverging, verbose=False)
    (record,) = load_records(output / "runs.jsonl").values()
    assert record["failed"] == str(raised.value) and raised.value.record["failed"]
    assert raised.value._render_traceback_() == [f"DivergenceError: {raised.value}"]  # in Jupyter
    publish()
    assert not any(evidence.iterdir())


def test_a_run_whose_last_update_diverges_is_recorded_as_such(tiny, output):
    diverging = replace(tiny, batch_size=60_000, optimizer="SGD", optimizer_args={"lr": 1e38})
    with pytest.raises(DivergenceError, match="the loss is not finite after"):
        run(diverging, verbose=False)
    (record,) = load_records(output / "runs.jsonl").values()
    assert record["failed"] and record["history"] == []


def test_a_step_under_another_name_is_published_with_its_weights(
    tiny, output, evidence, monkeypatch
):
    monkeypatch.setitem(STEPS, "basic", tiny)
    model, _ = run(replace(tiny, name="my basic"), verbose=False)
    publish()
    weights = torch.load(evidence / "basic.pt", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert len(load_records(evidence / "runs.jsonl")) == 1


def test_a_run_with_uncommitted_code_is_not_published(tiny, output, evidence, monkeypatch, capsys):
    monkeypatch.setitem(STEPS, "basic", tiny)
    for commit in ("0123456789-dirty", None):
        monkeypatch.setattr(provenance, "COMMIT", commit)
        run(tiny, verbose=False)
        publish()
        fault = "with uncommitted code: commit src and run again"
        if commit is None:
            fault = "outside a git clone: run again in a clone"
        assert f"not published: basic, seed 1, made {fault}\n" in capsys.readouterr().err
    assert not any(evidence.iterdir())


def test_your_own_weights_are_loaded_if_there_are_any(tiny, output, monkeypatch):
    monkeypatch.setitem(STEPS, "basic", tiny)
    shipped = load_model("basic").state_dict()
    model, _ = run(tiny, verbose=False)
    own = load_model("basic").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(own[name], value) and not torch.equal(own[name], shipped[name])
    monkeypatch.setitem(STEPS, "basic", replace(tiny, batch_size=250))  # the recipe has changed
    for name, value in load_model("basic").state_dict().items():
        assert torch.equal(value, shipped[name])


@pytest.mark.parametrize("content", ["damaged", "of another run"])
def test_weights_of_your_own_that_are_not_those_of_the_run_are_refused(
    content, tiny, output, evidence, monkeypatch, capsys
):
    monkeypatch.setitem(STEPS, "basic", tiny)
    run(tiny, verbose=False)
    own = output / "basic.pt"
    if content == "damaged":
        own.write_bytes(b"no weights")
    else:  # the recipe was changed, run, and changed back
        torch.save(BasicNet().state_dict(), own)
    with pytest.raises(FileError, match=r"basic.pt does not hold .*: run it again, or delete the "):
        load_model("basic")
    publish()
    assert "not published: basic, seed 1, whose weights are not in " in capsys.readouterr().err
    assert not any(evidence.iterdir())


def test_a_run_that_is_not_recorded_trains_again_and_leaves_nothing(tiny, output, capsys):
    for _ in range(2):
        run(tiny, file=None)
        assert "EPOCH: 1" in capsys.readouterr().out
    assert not any(path.is_file() for path in output.rglob("*"))


def test_a_smoke_test_saves_nothing_and_says_that_it_is_one(smoke, output, capsys):
    run(BASIC)
    assert not any(path.is_file() for path in output.rglob("*"))
    assert capsys.readouterr().out.startswith("Smoke test: 2,000 images, and nothing is recorded.")


def test_a_classroom_run_has_all_epochs_and_fewer_images(output, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "classroom")
    load, limits = experiments.load_mnist, []

    def load_fewer(split, device, limit):
        limits.append(limit)
        return load(split, device, IMAGES)

    monkeypatch.setattr(experiments, "load_mnist", load_fewer)
    _, record = run(replace(BASIC, epochs=2))
    assert capsys.readouterr().out.startswith("Classroom run: 8,000 images, and nothing is rec")
    assert limits == [8_000] and len(record["history"]) == 2
    assert record["train_size"] == record["test_size"] == IMAGES
    assert not any(path.is_file() for path in output.rglob("*"))


def test_another_reduction_is_refused(monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "lesson")
    with pytest.raises(InputError, match="a number of epochs, 'classroom', or 0; got 'lesson'"):
        run(BASIC)


def test_every_published_record_names_a_clean_commit():
    for name in ("runs.jsonl", "study.jsonl", "exercises.jsonl", "robustness.jsonl"):
        records = load_records(store.EVIDENCE / name)
        assert records
        for record in records.values():
            assert re.fullmatch(r"[0-9a-f]{10}", record["commit"]), record["recipe"]["name"]


def test_of_an_averaged_network_the_average_is_saved_and_its_errors_are_recorded(
    few_images, output, mnist, monkeypatch
):
    step = replace(AUGMENTATION, epochs=2, batch_size=25)
    monkeypatch.setitem(STEPS, "augmentation", step)
    model, record = run(step, 1, "cpu", verbose=False)
    saved = torch.load(output / "augmentation.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    images, labels = (part[:IMAGES] for part in mnist[1])
    found, _ = predict(model, torch.device("cpu"), Loader(images, labels))
    wrong = (found != labels).nonzero().flatten().tolist()
    assert record["errors"] == [[index, found[index].item()] for index in wrong]


def test_the_log_names_the_images_of_the_split(smoke, output, capsys):
    run(replace(BASIC, split="validation"))
    assert "Validation: Average loss: " in capsys.readouterr().out
