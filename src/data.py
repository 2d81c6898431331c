"""MNIST as tensors on the device, shuffled batches, and augmentation of a whole batch at once.

Read `load_mnist` first, then `Loader`, then `RandomAffine` and the two functions below it.
"""

import gzip
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import transforms
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import InterpolationMode

from .errors import FileError, InputError

MEAN, STD = 0.1307, 0.3081  # of the pixels of the 60,000 training images, scaled to [0, 1]
FOLD_SIZE = 10_000  # images: the training set has six such folds, the test set has this size


class Split(NamedTuple):
    """Indices of images; the test images follow the 60,000 training images."""

    train: tuple[range, ...]
    evaluate: range


TEST = range(6 * FOLD_SIZE, 7 * FOLD_SIZE)
SPLITS = {
    f"fold {number + 1}": Split(
        train=(range(FOLD_SIZE * number), range(FOLD_SIZE * (number + 1), 6 * FOLD_SIZE)),
        evaluate=range(FOLD_SIZE * number, FOLD_SIZE * (number + 1)),
    )
    for number in range(6)
}
SPLITS |= {
    "validation": SPLITS["fold 6"],
    "test": Split(train=(range(6 * FOLD_SIZE),), evaluate=TEST),
    "test, 50,000 images": Split(train=(range(5 * FOLD_SIZE),), evaluate=TEST),  # as for a fold
}
REPOSITORY = Path(__file__).parent.parent
# The folder that holds MNIST/raw/. A relative path starts at the repository's folder.
MNIST_ROOT = REPOSITORY / Path(os.environ.get("MNIST_ROOT") or "data").expanduser()
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"


@lru_cache(maxsize=1)
def read_mnist(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The 60,000 training and the 10,000 test images, in this order, and their labels.

    Images are uint8 of shape (70000, 28, 28), labels int64 of shape (70000,). The four archives in
    `root/MNIST/raw` are verified with torchvision's checksums; nothing is extracted or downloaded.
    Raises FileError if an archive is missing or damaged.
    """
    parts = []
    for name, md5 in MNIST.resources:
        archive = root / "MNIST" / "raw" / name
        if not check_integrity(str(archive), md5):
            fault = f"{archive} is {'damaged' if archive.exists() else 'missing'}"
            advice = f"restore it with git checkout, or download it from {MIRROR}{name}"
            raise FileError(f"{fault}: {advice} (MD5 {md5})")
        header = 16 if "images" in name else 8  # bytes
        parts.append(np.frombuffer(gzip.decompress(archive.read_bytes()), np.uint8, offset=header))
    train_images, train_labels, test_images, test_labels = parts
    images = torch.from_numpy(np.concatenate([train_images, test_images])).view(-1, 28, 28)
    return images, torch.from_numpy(np.concatenate([train_labels, test_labels])).long()


def load_mnist(
    split: str = "test", device: torch.device | str = "cpu", limit: int | None = None
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """The images to train on and the images to evaluate on: `((images, labels), (images, labels))`.

    Images are float32 in [0, 1] of shape (N, 1, 28, 28), labels int64 of shape (N,), on `device`.
    With `split="test"` these are the 60,000 training and the 10,000 test images; with "fold 1" to
    "fold 6" five of the six folds of the training images, and the other one. "validation" is
    "fold 6": the first 50,000 training images, and the last 10,000. "test, 50,000 images" has the
    same training images, and the test images. `SPLITS` holds the names. `limit` keeps only the
    first images of each set. Raises InputError for an unknown split, and FileError if an archive is
    missing or damaged.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}: choose one of {', '.join(map(repr, SPLITS))}")
    images, labels = read_mnist(MNIST_ROOT)

    def on_device(*ranges: range) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [torch.arange(part.start, part.stop, part.step) for part in ranges]
        index = torch.cat(parts)[:limit]
        pixels = images[index].unsqueeze(1).to(device).float().div_(255)
        return pixels, labels[index].to(device)

    return on_device(*SPLITS[split].train), on_device(SPLITS[split].evaluate)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Shift and scale images in [0, 1] to mean 0 and standard deviation 1 over the training set."""
    return (images - MEAN) / STD


@dataclass(eq=False)
class Loader:
    """Batches of tensors that are already on the device: no workers, no Python code per image.

    `images` are float32 in [0, 1], of shape (N, 1, H, W), square if they are augmented, and
    `labels` int64 of shape (N,). Iterating yields `(data, target)` of up to `batch_size` images,
    augmented if `augment` is given, and normalised or in [0, 1]. With a `generator` (on the CPU),
    every pass draws a new shuffle and new transforms from it: the same seed gives the same ones on
    every device. Without one, the order is that of the data set, and transforms come from PyTorch's
    global generator.
    """

    images: torch.Tensor
    labels: torch.Tensor
    batch_size: int = 250
    generator: torch.Generator | None = None
    augment: "RandomAffine | None" = None
    normalized: bool = True

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        count, device = len(self.images), self.images.device
        order = torch.arange(count)
        if self.generator:
            order = torch.randperm(count, generator=self.generator)
        if self.augment:
            matrices = self.augment.matrices(count, self.images.shape[-1], self.generator)
            matrices = matrices.to(device).split(self.batch_size)
        for number, index in enumerate(order.to(device).split(self.batch_size)):
            data = self.images.index_select(0, index)
            if self.augment:
                data = affine(data, matrices[number], self.augment.interpolation)
            if self.normalized:
                data = normalize(data)
            yield data, self.labels.index_select(0, index)

    def state_dict(self) -> dict:
        """The state of the random generator, if there is one."""
        return {"generator": self.generator.get_state()} if self.generator else {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned: the next pass repeats the one that followed it."""
        if self.generator:
            self.generator.set_state(state["generator"])


class RandomAffine(transforms.RandomAffine):
    """torchvision's RandomAffine for a whole batch: `matrices` draws one transform per image.

    The arguments and their ranges are torchvision's, but `degrees` and `shear` (along x alone) are
    single numbers, `translate` and `scale` are pairs, and pixels from outside the image are 0.
    Raises ValueError or TypeError for invalid values.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        interpolation: str = "nearest",
    ):
        if translate is None or scale is None:
            raise TypeError("translate and scale must be pairs of numbers, not None")
        mode = InterpolationMode(interpolation)
        super().__init__(float(degrees), translate, scale, float(shear), mode)
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("scale must be (low, high) with 0 < low <= high")

    def matrices(
        self, count: int, size: int = 28, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Random inverse transforms for `count` images of `size` × `size` pixels.

        Returns float32 of shape (count, 2, 3), on the CPU.
        """

        def uniform(low: float, high: float) -> torch.Tensor:
            return torch.empty(count).uniform_(low, high, generator=generator)

        dx, dy = (fraction * size for fraction in self.translate)
        angle = uniform(*self.degrees)
        translate = torch.stack([uniform(-dx, dx), uniform(-dy, dy)], dim=1).round()
        scale, shear = uniform(*self.scale), uniform(*self.shear)
        return affine_matrices(angle, translate, scale, shear, size)


def affine_matrices(
    angle: torch.Tensor,
    translate: torch.Tensor,
    scale: torch.Tensor,
    shear: torch.Tensor,
    size: int = 28,
) -> torch.Tensor:
    """The inverse of translation · rotation · scaling · shear, as torchvision composes them.

    In this product of matrices, shear is applied to the image first, and translation last.

    `angle` and `shear` (along x) in degrees, `scale` a factor, each of shape (N,); `translate` in
    pixels, shape (N, 2). The centre of the image stays where it is, apart from the translation.
    Returns shape (N, 2, 3) in the coordinates of `affine_grid`, where the image spans (-1, 1).
    """
    angle, shear = angle * (math.pi / 180), shear * (math.pi / 180)
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    first_row = torch.stack([cos - sin * tan, cos * tan + sin], dim=1)
    inverse = torch.stack([first_row, torch.stack([-sin, cos], dim=1)], dim=1)
    inverse = inverse / scale[:, None, None]
    shift = -inverse @ translate[:, :, None] * (2 / size)
    return torch.cat([inverse, shift], dim=2)


def affine(
    images: torch.Tensor, matrices: torch.Tensor, interpolation: InterpolationMode | str = "nearest"
) -> torch.Tensor:
    """Transform each image of a batch (N, 1, H, W) by its own inverse matrix; outside is 0."""
    mode = InterpolationMode(interpolation).value
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode, padding_mode="zeros", align_corners=False)
