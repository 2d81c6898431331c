"""What is measured on the trained network: against other computations, and only when needed."""

import json

import numpy as np
import pytest
import torch

from src.data import Loader
from src.evidence import behaviour, report, robustness
from src.experiments import load_model
from src.training import predict


@pytest.fixture(scope="module")
def reading(mnist):
    """The confidence of the committed network for each test image, and whether it is right."""
    model = load_model(weights=behaviour.WEIGHTS)
    images, labels = mnist[1]
    predictions, confidences = predict(model, torch.device("cpu"), Loader(images, labels))
    return confidences.numpy(), (predictions == labels).numpy()


def test_the_calibration_error_is_that_of_its_definition(reading):
    confidences, right = reading
    error = 0.0
    for low in np.arange(15) / 15:  # as the paper writes it: a sum over bins
        inside = (confidences >= low) & (confidences < low + 1 / 15)
        if low > 0.9:
            inside |= confidences == 1
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    ours = behaviour.calibration_error(*map(torch.from_numpy, reading))
    assert ours == pytest.approx(100 * error, abs=0.01)
    assert behaviour.load_behaviour()["calibration"] == pytest.approx(ours, abs=0.01)


@pytest.mark.parametrize("confidence, share, error", [(0.8, 0.8, 0), (0.9, 0.6, 30), (1, 0, 100)])
def test_confidence_above_accuracy_is_an_error(confidence, share, error):
    confidences = torch.full((100,), float(confidence))
    right = torch.arange(100) < 100 * share
    assert behaviour.calibration_error(confidences, right) == pytest.approx(error, abs=0.01)


def test_the_errors_of_two_bins_do_not_cancel():
    confidences = torch.tensor([0.9] * 10 + [1.0] * 10)
    right = torch.tensor([True] * 10 + [True] * 9 + [False])
    assert behaviour.calibration_error(confidences, right) == pytest.approx(10, abs=0.01)


def test_the_recorded_confidences_are_those_of_the_committed_weights(reading):
    confidences, right = reading
    numbers = behaviour.load_behaviour()
    assert numbers["right"] == pytest.approx(100 * confidences[right].mean(), abs=0.02)
    assert numbers["wrong"] == pytest.approx(100 * confidences[~right].mean(), abs=0.5)


def test_rounded_weights_have_255_levels_for_each_output_channel():
    model = load_model(weights=behaviour.WEIGHTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = behaviour.round_weights(model).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in rounded.items():
        if value.dim() < 2:
            assert torch.equal(value, before[name])
            continue
        largest = before[name].flatten(1).abs().amax(dim=1)
        distance = (value - before[name]).flatten(1).abs().amax(dim=1)
        assert (distance <= largest / 254 * 1.001).all() and distance.max() > 0
        assert max(len(channel.unique()) for channel in value.flatten(1)) <= 255


def test_new_weights_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "WEIGHTS", tmp_path / "augmentation.pt")
    monkeypatch.setattr(behaviour, "FILE", tmp_path / "behaviour.json")
    numbers = dict.fromkeys(behaviour.QUANTITIES, 50.0)
    measured = []
    monkeypatch.setattr(behaviour, "measure", lambda: measured.append(1) or numbers)
    for weights in (b"old", b"new"):
        behaviour.WEIGHTS.write_bytes(weights)
        assert not behaviour.is_current()
        behaviour.update()
        behaviour.update()
        assert behaviour.is_current() and behaviour.load_behaviour() == numbers
    assert len(measured) == 2


def test_numbers_are_measured_again_when_a_function_that_measures_has_changed(monkeypatch):
    assert behaviour.is_current()
    names = ["measure", "calibration_error", "round_weights", "_confidences", "_percent"]
    functions = [(behaviour, name) for name in [*names, "predict", "normalize"]]
    for module, name in [*functions, (robustness, "measure_accuracy")]:
        with monkeypatch.context() as once:
            once.setattr(module, name, lambda *_: None)
            assert not behaviour.is_current(), name


def test_report_names_numbers_of_other_weights(tmp_path, monkeypatch):
    record = json.loads(behaviour.FILE.read_text(encoding="utf-8"))
    stale = tmp_path / "behaviour.json"
    stale.write_text(json.dumps({**record, "sources": "others"}), encoding="utf-8")
    monkeypatch.setattr(behaviour, "FILE", stale)
    (fault,) = report.check()
    assert fault.startswith("results/behaviour.json does not agree")


def test_the_recorded_accuracy_of_inverted_images_is_that_of_inverted_pixels(mnist):
    images, labels = mnist[1]
    model = load_model(weights=behaviour.WEIGHTS)
    loader = Loader((255 - (255 * images).round()) / 255, labels)
    predictions, _ = predict(model, torch.device("cpu"), loader)
    accuracy = 100 * (predictions == loader.labels).double().mean().item()
    assert behaviour.load_behaviour()["inverted"] == pytest.approx(accuracy, abs=0.1)
