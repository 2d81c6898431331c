"""How accuracy falls when the test images are turned, shifted, scaled or sheared."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..data import Loader, affine, affine_matrices
from ..training import predict

# Each distortion by its unit: the strengths that are measured. All but the scale are applied in
# both directions.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "rotation (degrees)": (0, 10, 20, 30, 40),
    "shift (pixels)": (0, 2, 4, 6),
    "scale": (0.6, 0.8, 1.0, 1.2, 1.4),
    "shear (degrees)": (0, 10, 20, 30),
}
Curves = Mapping[str, list[tuple[float, float]]]  # strength and accuracy in %, by distortion

_ARGUMENTS = {  # of affine_matrices
    "rotation (degrees)": "angle",
    "shift (pixels)": "translate",
    "scale": "scale",
    "shear (degrees)": "shear",
}


def distort(images: torch.Tensor, distortion: str, strength: float) -> torch.Tensor:
    """The images, float32 of shape (N, 1, 28, 28), after one distortion of the same strength.

    A shift moves them along both axes.
    """
    count = len(images)
    zero, full = torch.zeros(count), torch.full((count,), float(strength))
    arguments = {"angle": zero, "translate": torch.zeros(count, 2)}
    arguments |= {"scale": torch.ones(count), "shear": zero}
    name = _ARGUMENTS[distortion]
    arguments[name] = torch.stack([full, full], dim=1) if name == "translate" else full
    matrices = affine_matrices(**arguments).to(images.device)
    return affine(images, matrices, "bilinear")


def distort_both_ways(
    images: torch.Tensor, labels: torch.Tensor, distortion: str, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images after a distortion in each direction, and their labels; a scale has one."""
    signs = (1,) if distortion == "scale" or strength == 0 else (1, -1)
    sets = [distort(images, distortion, sign * strength) for sign in signs]
    return torch.cat(sets), labels.repeat(len(sets))


def measure_accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The accuracy in % of a model that expects normalised images; `images` are in [0, 1]."""
    predictions, _ = predict(model, images.device, Loader(images, labels))
    return 100 * (predictions == labels.cpu()).double().mean().item()


def measure_robustness(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Curves:
    """Each of the `STRENGTHS` of every distortion, and the accuracy in %.

    The model expects normalised images; `images` are in [0, 1], of shape (N, 1, 28, 28).
    """
    curves = {distortion: [] for distortion in STRENGTHS}
    for distortion, strengths in STRENGTHS.items():
        for strength in strengths:
            distorted = distort_both_ways(images, labels, distortion, strength)
            curves[distortion].append((strength, measure_accuracy(model, *distorted)))
    return curves


def stack_accuracies(seeds: Sequence[Curves], distortion: str) -> np.ndarray:
    """The accuracies in % under one distortion, of shape (seeds, strengths)."""
    return np.array([[accuracy for _, accuracy in curves[distortion]] for curves in seeds])


def mean_curves(seeds: Sequence[Curves]) -> Curves:
    """The mean accuracy over the seeds, at each strength of each distortion."""
    means = {}
    for distortion, points in seeds[0].items():
        strengths = [strength for strength, _ in points]
        accuracies = stack_accuracies(seeds, distortion).mean(axis=0)
        means[distortion] = list(zip(strengths, accuracies))
    return means
