"""The trained network in the user's hands: its weights, and the network as ONNX."""

import os
import shutil

import pytest
import torch

from src.data import Loader, normalize
from src.experiments import STEPS, load_model, weights_path
from src.inference import export
from src.findings import shown
from src.training import test as evaluate


@pytest.mark.parametrize("step", STEPS)
def test_committed_weights_give_the_recorded_accuracy(step, mnist):
    loader = Loader(*mnist[1], normalized=STEPS[step].normalized)
    _, accuracy = evaluate(load_model(step), torch.device("cpu"), loader, progress=False)
    # Another processor may round otherwise, and read an image or two differently.
    assert accuracy == pytest.approx(shown(step)["history"][-1]["test_accuracy"], abs=0.02)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("content", ["another architecture", "pickled code", "nothing", "torn", "no file"])
def test_a_file_that_does_not_hold_the_weights_is_refused_in_one_line(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    if content == "another architecture":
        shutil.copy(weights_path("basic"), path)
    elif content == "pickled code":
        torch.save({"weights": Harm()}, path)
    elif content != "no file":
        path.write_bytes(weights_path("augmentation").read_bytes()[:1000] if content == "torn" else b"")
    with pytest.raises(RuntimeError) as raised:
        load_model("augmentation", path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "harm").exists()


def test_an_unknown_step_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="unknown step: 'augmented'; did you mean 'augmentation'?"):
        load_model("augmented")


def test_the_exported_network_agrees_with_pytorch(mnist, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    _, (images, _) = mnist
    assert export(tmp_path / "mnist.onnx") <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["mnist.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "mnist.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 300):
        (found,) = session.run(["log_probabilities"], {"images": images[:count].numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), load_model()(normalize(images[:count])), rtol=0, atol=1e-5)
