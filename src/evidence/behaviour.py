"""What the network of step 3 does beyond the test images as they are.

The numbers are measured with this repository's weights and test images. `report` measures them
again when the weights or the functions that measure have changed; `behaviour.json`
keeps them.
"""

import copy
import inspect
import json

import torch
from torch import nn

from .. import store
from ..data import Loader, load_mnist, normalize
from ..experiments import load_model
from ..provenance import environment
from ..training import predict
from . import robustness

WEIGHTS = store.EVIDENCE / "augmentation.pt"
FILE = store.EVIDENCE / "behaviour.json"
BINS = 15  # of confidence, as Guo et al. used
NOISE_IMAGES = 1000

# What is measured, by the names with which sentences quote it.
QUANTITIES = {
    "calibration": f"expected calibration error, {BINS} bins (pp)",
    "right": "mean confidence, images that are classified correctly (%)",
    "wrong": "mean confidence, misclassified images (%)",
    "noise 0.1": "accuracy, with Gaussian noise of standard deviation 0.1 (%)",
    "noise 0.2": "accuracy, with Gaussian noise of standard deviation 0.2 (%)",
    "inverted": "accuracy, inverted images: black on white (%)",
    "8 bits": "accuracy, weights rounded to 8 bits (%)",
    "blank": "confidence for a blank image (%)",
    "random": f"share of {NOISE_IMAGES:,} images of noise read with 90 % confidence or more (%)",
}


def measure() -> dict[str, float]:
    """All `QUANTITIES`, in % or percentage points."""
    model = load_model(weights=WEIGHTS)
    _, (images, labels) = load_mnist()
    random = torch.Generator().manual_seed(1)
    predictions, confidences = predict(model, images.device, Loader(images, labels))
    right = predictions == labels
    numbers = {
        "calibration": calibration_error(confidences, right),
        "right": _percent(confidences[right]),
        "wrong": _percent(confidences[~right]),
    }
    for deviation in (0.1, 0.2):
        noise = deviation * torch.randn(images.shape, generator=random)
        numbers[f"noise {deviation}"] = robustness.measure_accuracy(model, images + noise, labels)
    numbers["inverted"] = robustness.measure_accuracy(model, 1 - images, labels)
    numbers["8 bits"] = robustness.measure_accuracy(round_weights(model), images, labels)
    numbers["blank"] = _percent(_confidences(model, torch.zeros(1, 1, 28, 28)))
    noise = torch.rand(NOISE_IMAGES, 1, 28, 28, generator=random)
    numbers["random"] = _percent(_confidences(model, noise) >= 0.9)
    return numbers


def _confidences(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    no_labels = torch.zeros(len(images), dtype=torch.long)
    return predict(model, images.device, Loader(images, no_labels))[1]


def _percent(values: torch.Tensor) -> float:
    return 100 * values.double().mean().item()


def calibration_error(confidences: torch.Tensor, right: torch.Tensor) -> float:
    """The expected calibration error in percentage points, over `BINS` of equal width.

    That is the mean distance of confidence and accuracy in a bin, weighted by its images
    (Guo et al., 2017, https://arxiv.org/abs/1706.04599). `confidences` in [0, 1] and the booleans
    `right` have shape (N,).
    """
    bins = (confidences * BINS).long().clamp(max=BINS - 1)
    surplus = torch.zeros(BINS, dtype=torch.float64)
    surplus.index_add_(0, bins, confidences.double() - right.double())
    return 100 * surplus.abs().sum().item() / len(confidences)


def round_weights(model: nn.Module) -> nn.Module:
    """A copy whose filters and matrices have 255 levels per output channel, around 0."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        if parameter.dim() < 2:  # biases, and what batch normalisation has learned
            continue
        weights = parameter.data.flatten(start_dim=1)
        step = weights.abs().amax(dim=1, keepdim=True) / 127
        parameter.data = ((weights / step).round() * step).view_as(parameter)
    return rounded


def load_behaviour() -> dict[str, float]:
    """The recorded numbers; none if there is no record."""
    return _load().get("numbers", {})


def is_current() -> bool:
    """Whether the numbers were measured with the present weights and functions."""
    return _load().get("sources") == _hash_sources()


def update() -> None:
    """Measure and record, if the record is not current."""
    if is_current():
        return
    record = {**environment(torch.device("cpu")), "sources": _hash_sources(), "numbers": measure()}
    store.write_text(FILE, json.dumps(record, indent=1) + "\n")


def _load() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def _hash_sources() -> str:
    functions = [measure, calibration_error, round_weights, _confidences, _percent]
    functions += [robustness.measure_accuracy, predict, normalize]
    code = "".join(map(inspect.getsource, functions))
    return store.digest(WEIGHTS.read_bytes() + f"{code}{QUANTITIES}".encode())
