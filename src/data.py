"""MNIST as tensors on the device, shuffled batches, and augmentation of a whole batch at once.

Read `load_mnist` first, then `Loader`, then `RandomAffine` and the two functions that it uses.
"""

import gzip
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity

MEAN, STD = 0.1307, 0.3081  # of the pixels of the 60,000 training images, scaled to [0, 1]
FOLD = 10_000  # images: the training set has six such folds, the test set has this size
SPLITS = (*(f"fold {number}" for number in range(1, 7)), "test", "validation")
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def data_root() -> Path:
    """The folder that holds `MNIST/raw/`: the environment variable MNIST_ROOT, else `data/`."""
    return Path(os.environ.get("MNIST_ROOT") or Path(__file__).parent.parent / "data")


@lru_cache(maxsize=1)
def read_mnist(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The 60,000 training and the 10,000 test images, in this order, and their labels.

    Images are uint8 of shape (70000, 28, 28), labels int64 of shape (70000,). The four archives in
    `root/MNIST/raw` are verified with torchvision's checksums; nothing is extracted or downloaded.
    Raises RuntimeError, in one line, if an archive is missing or damaged.
    """
    parts = []
    for name, md5 in MNIST.resources:
        archive = root / "MNIST" / "raw" / name
        if not check_integrity(str(archive), md5):
            state = "damaged" if archive.exists() else "missing"
            raise RuntimeError(
                f"{archive} is {state}: restore it with git checkout, or download it from "
                f"{MIRROR}{name} (MD5 {md5})"
            )
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
    "fold 6": the first 50,000 training images, and the last 10,000. `limit` takes the first images
    of each only. Raises RuntimeError, in one line, if an archive is missing or damaged.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    start = FOLD * ({"test": 7, "validation": 6}.get(split) or int(split[-1])) - FOLD
    images, labels = read_mnist(data_root())
    everything, held_out = torch.arange(6 * FOLD), torch.arange(start, start + FOLD)
    rest = everything[(everything < start) | (everything >= start + FOLD)]
    return tuple(
        (images[chosen].unsqueeze(1).to(device).float().div_(255), labels[chosen].to(device))
        for chosen in (rest[:limit], held_out[:limit])
    )


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Shift and scale images in [0, 1] to mean 0 and standard deviation 1 over the training set."""
    return (images - MEAN) / STD


class Loader:
    """Batches of tensors that are already on the device: no workers, no Python code per image.

    Iterating yields `(data, target)` of up to `batch_size` images, augmented if `augment` is given,
    and normalised or in [0, 1]. With a `generator` (on the CPU), every pass draws a new shuffle and
    new transforms from it: the same seed gives the same ones on every device. Without one, the
    order is that of the data set.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int = 250,
        *,
        generator: torch.Generator | None = None,
        augment: "RandomAffine | None" = None,
        normalized: bool = True,
    ):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator, self.augment, self.normalized = generator, augment, normalized

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
            yield normalize(data) if self.normalized else data, self.labels.index_select(0, index)


class RandomAffine:
    """`torchvision.transforms.RandomAffine` for a whole batch: each image its own transform.

    `degrees`: rotation in (-degrees, degrees). `translate`: maximum shift as a fraction of width
    and height, rounded to whole pixels as torchvision does. `scale`: range of the factor. `shear`:
    shear along x in (-shear, shear) degrees. `interpolation`: "nearest" (torchvision's default) or
    "bilinear". Out-of-bounds pixels are filled with 0. Raises ValueError for any other value.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        interpolation: str = "nearest",
    ):
        (dx, dy), (low, high) = translate, scale
        numbers = degrees, shear, dx, dy, low, high
        if not all(isinstance(number, (int, float)) and number >= 0 for number in numbers):
            raise ValueError("degrees, translate, scale and shear must be numbers of at least 0")
        if not 0 < low <= high or interpolation not in ("nearest", "bilinear"):
            raise ValueError("scale must rise from above 0, interpolation be nearest or bilinear")
        self.degrees, self.translate, self.scale = degrees, translate, scale
        self.shear, self.interpolation = shear, interpolation

    def matrices(
        self, count: int, size: int = 28, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Random inverse transforms for `count` images of `size` × `size` pixels: (count, 2, 3)."""

        def uniform(low: float, high: float) -> torch.Tensor:
            return torch.empty(count).uniform_(low, high, generator=generator)

        dx, dy = (fraction * size for fraction in self.translate)
        angle = uniform(-self.degrees, self.degrees)
        translate = torch.stack([uniform(-dx, dx), uniform(-dy, dy)], dim=1).round()
        scale, shear = uniform(*self.scale), uniform(-self.shear, self.shear)
        return affine_matrices(angle, translate, scale, shear, size)


def affine_matrices(
    angle: torch.Tensor,
    translate: torch.Tensor,
    scale: torch.Tensor,
    shear: torch.Tensor,
    size: int = 28,
) -> torch.Tensor:
    """The inverse of rotation · scaling · shear · translation, as torchvision composes them.

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
    images: torch.Tensor, matrices: torch.Tensor, interpolation: str = "nearest"
) -> torch.Tensor:
    """Transform each image of a batch (N, 1, H, W) by its own inverse matrix; outside is 0."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, interpolation, padding_mode="zeros", align_corners=False)
