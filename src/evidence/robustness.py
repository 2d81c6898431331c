"""How accuracy falls when the test images are turned, shifted, scaled or sheared.

`run_compared` trains the networks that the evidence compares, and records what they reach in
`robustness.jsonl` in `store.OUTPUT`; `report` publishes and draws it.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import nn

from .. import store
from ..data import Loader, affine, affine_matrices, load_mnist
from ..device import environment, pick_device
from ..experiments import AUGMENTATION, REGULARIZATION, find_reduction, run
from ..recipes import Experiment
from ..training import predict
from .original import ORIGINAL
from .rows import is_committed

# Each distortion by its unit: the strengths that are measured. All but the scale are applied in
# both directions.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "rotation (degrees)": (0, 10, 20, 30, 40),
    "shift (pixels)": (0, 2, 4, 6),
    "scale": (0.6, 0.8, 1.0, 1.2, 1.4),
    "shear (degrees)": (0, 10, 20, 30),
}
Accuracies = Mapping[str, list[float]]  # in %, at each of the strengths of a distortion

# What the evidence compares, each trained with seed 1.
COMPARED = {
    "step 2": REGULARIZATION,
    "step 3": AUGMENTATION,
    "step 3 without transforms": replace(AUGMENTATION, augmentation=None),
    "the original's step 3": ORIGINAL["augmentation"],
}
FILE = "robustness.jsonl"


def distort(images: torch.Tensor, distortion: str, strength: float) -> torch.Tensor:
    """The images, float32 of shape (N, 1, 28, 28), after one distortion of the same strength.

    A shift moves them along both axes.
    """
    count = len(images)
    zero, full = torch.zeros(count), torch.full((count,), float(strength))
    arguments = {"angle": zero, "translate": torch.zeros(count, 2)}
    arguments |= {"scale": torch.ones(count), "shear": zero}
    if distortion == "rotation (degrees)":
        arguments["angle"] = full
    elif distortion == "shift (pixels)":
        arguments["translate"] = torch.stack([full, full], dim=1)
    elif distortion == "scale":
        arguments["scale"] = full
    else:
        arguments["shear"] = full
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


def measure_robustness(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, list[float]]:
    """The accuracy in % at each of the `STRENGTHS` of every distortion.

    The model expects normalised images; `images` are in [0, 1], of shape (N, 1, 28, 28).
    """
    accuracies = {distortion: [] for distortion in STRENGTHS}
    for distortion, strengths in STRENGTHS.items():
        for strength in strengths:
            distorted = distort_both_ways(images, labels, distortion, strength)
            accuracies[distortion].append(measure_accuracy(model, *distorted))
    return accuracies


def run_compared(device: str | None = None) -> None:
    """Train what is not recorded of `COMPARED`, and record each run with its `robustness`.

    With MNIST_REDUCED, nothing is recorded. Runs of uncommitted code, and those on another kind of
    device or with another version of PyTorch, do not count as recorded.
    """
    torch_device = pick_device(device)
    here = store.platform(environment(torch_device))
    own = store.load_records(store.OUTPUT / FILE)
    recorded = {key for key, record in own.items() if is_committed(record)}
    recorded |= store.load_records(store.EVIDENCE / FILE).keys()
    _, (images, labels) = load_mnist(device=torch_device)
    for name, experiment in COMPARED.items():
        if _key(experiment, here) in recorded:
            continue
        print(f"{name}:")
        model, record = run(experiment, device=device, file=None)
        if not find_reduction():
            record["robustness"] = measure_robustness(model, images, labels)
            store.append_records(store.OUTPUT / FILE, [record])


def load_compared() -> dict[str, dict]:
    """The records of `COMPARED` by name, all from the platform of the newest one."""
    records = store.load_records(store.EVIDENCE / FILE)
    if not records:
        return {}
    *_, newest = records.values()
    keys = {name: _key(recipe, store.platform(newest)) for name, recipe in COMPARED.items()}
    return {name: records[key] for name, key in keys.items() if key in records}


def _key(experiment: Experiment, platform: str) -> str:
    """The key of the record of a recipe with seed 1."""
    return f"{store.run_key(asdict(experiment), 1)} on {platform}"
