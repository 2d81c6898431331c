"""The trained network in use: digits read from image files, and the network as ONNX."""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from . import plots
from .data import normalize
from .experiments import load_model
from .images import read_digit
from .records import replacing


class Classifier(nn.Module):
    """The trained network of a step with the normalisation of its images inside.

    Takes images of shape (N, 1, 28, 28) in [0, 1], white on black; returns log-probabilities of shape (N, 10).
    """

    def __init__(self):
        super().__init__()
        self.model = load_model()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(normalize(images))


def predict(paths: Iterable[str], picture: Path | None = None) -> tuple[list[dict], list[str]]:
    """Read the digit in each image file; returns what was read and, of the files that failed, why, one line each.

    Each result holds `file`, `digit`, `confidence` and `runner_up` (another digit), and all ten `probabilities`, in [0, 1]. Where a
    `picture` is asked for, it shows what the network saw.
    """
    images, files, faults = [], [], []
    for path in paths:
        try:
            images.append(read_digit(path))
            files.append(str(path))
        except ValueError as error:
            faults.append(str(error))
    if not images:
        return [], faults
    with torch.no_grad():
        probabilities = Classifier()(torch.stack(images)).exp()
    results = []
    for file, values in zip(files, probabilities):
        digit, runner_up = values.topk(2).indices.tolist()
        results.append({"file": file, "digit": digit, "confidence": values[digit].item(), "runner_up": runner_up,
                        "probabilities": values.tolist()})
    if picture:
        plots.predictions(torch.stack(images), probabilities, [Path(file).name for file in files]).savefig(picture)
    return results, faults


def export(path: Path) -> float:
    """Write the classifier as ONNX, and check it; returns the largest difference of a log-probability from PyTorch's, in float64.

    The input `images` and the output `log_probabilities` take any number of images. Raises RuntimeError where the packages
    are missing or the difference is above 1e-5; the file is not written then.
    """
    try:
        import onnxscript  # noqa: F401, which torch's exporter needs
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(f"export needs the package {error.name}: pip install onnx onnxscript onnxruntime") from None
    model, images = Classifier().eval(), torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with replacing(path) as new:
        torch.onnx.export(model, (images,), new, input_names=["images"], output_names=["log_probabilities"], verbose=False,
                          dynamic_shapes={"images": {0: torch.export.Dim("count")}}, dynamo=True, external_data=False)
        session = onnxruntime.InferenceSession(new, providers=["CPUExecutionProvider"])
        exact, difference = copy.deepcopy(model).double(), 0.0
        for some in (images, images[:1]):
            with torch.no_grad():
                expected = exact(some.double())
            (found,) = session.run(None, {"images": some.numpy()})
            difference = max(difference, (torch.from_numpy(found) - expected).abs().max().item())
        if difference > 1e-5:
            raise RuntimeError(f"the exported network differs from PyTorch's by {difference:.1g}")
    return difference
