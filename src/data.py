"""MNIST as tensors on the device, shuffled batches, and augmentation of a whole batch at once."""

import math
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, extract_archive

MEAN, STD = 0.1307, 0.3081  # of the pixels of the 60,000 training images, scaled to [0, 1]
SMOKE_TEST_SIZE = 2_000  # training images, and test images


def smoke_test_epochs() -> int:
    """The number of epochs if the environment variable MNIST_REDUCED asks for a smoke test (few images, nothing saved), else 0."""
    text = os.environ.get("MNIST_REDUCED") or "0"
    if not text.isdecimal():
        raise ValueError(
            f"MNIST_REDUCED must be the number of epochs of a smoke test, or 0; got {text!r}"
        )
    return int(text)


def data_root() -> Path:
    """The folder that holds `MNIST/raw/`: the environment variable MNIST_ROOT, else `data/` of the checkout."""
    return Path(os.environ.get("MNIST_ROOT") or Path(__file__).parent.parent / "data")


@lru_cache(maxsize=1)
def read_mnist(root: Path) -> tuple[datasets.MNIST, datasets.MNIST]:
    """The training and the test set as torchvision reads them from the four archives in `root/MNIST/raw`.

    The archives are verified and extracted to a temporary folder: no extracted file is left that could be damaged later, and the
    root need not be writable. Raises RuntimeError, in one line, if an archive is missing or damaged.
    """
    with TemporaryDirectory() as scratch:
        extracted = Path(scratch) / "MNIST" / "raw"
        extracted.mkdir(parents=True)
        for name, md5 in datasets.MNIST.resources:
            archive = root / "MNIST" / "raw" / name
            if not check_integrity(archive, md5):
                raise RuntimeError(
                    f"{archive} is {'damaged' if archive.exists() else 'missing'}: restore it with git checkout, or "
                    f"download it from {datasets.MNIST.mirrors[0]}{name} (MD5 {md5})"
                )
            extract_archive(archive, extracted)
        return datasets.MNIST(scratch, train=True), datasets.MNIST(scratch, train=False)


def load_mnist(
    split: str = "test", device: torch.device | str = "cpu"
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """The images to train on and the images to evaluate on: `((images, labels), (images, labels))`.

    Images are float32 in [0, 1] of shape (N, 1, 28, 28), labels int64 of shape (N,), both on `device`.
    With `split="test"` these are the 60,000 training and the 10,000 test images; with `split="validation"` the first
    50,000 and the last 10,000 training images, and the test set is not used. A smoke test gets the first 2,000 of each.

    Raises RuntimeError, in one line, if an archive is missing or damaged.
    """
    if split not in ("test", "validation"):
        raise ValueError(f"unknown split {split!r}: choose 'test' or 'validation'")
    images, labels = (
        torch.cat([getattr(part, name) for part in read_mnist(data_root())])
        for name in ("data", "targets")
    )
    end, limit = (
        60_000 if split == "test" else 50_000,
        SMOKE_TEST_SIZE if smoke_test_epochs() else None,
    )
    return tuple(
        (
            images[part][:limit].unsqueeze(1).to(device).float().div_(255),
            labels[part][:limit].to(device),
        )
        for part in (slice(end), slice(end, end + 10_000))
    )


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Shift and scale images in [0, 1] to zero mean and unit standard deviation over the training set."""
    return (images - MEAN) / STD


class RandomAffine:
    """`torchvision.transforms.RandomAffine` for a whole batch: every image gets a transform of its own.

    `degrees`: rotation in (-degrees, degrees). `translate`: maximum shift as a fraction of width and height, rounded to
    whole pixels as torchvision does. `scale`: range of the factor. `shear`: shear along x in (-shear, shear) degrees.
    `interpolation`: "nearest" (torchvision's default) or "bilinear". Out-of-bounds pixels are filled with 0.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        interpolation: str = "nearest",
    ):
        self.degrees, self.translate, self.scale, self.shear, self.interpolation = (
            degrees,
            translate,
            scale,
            shear,
            interpolation,
        )

    def matrices(
        self, count: int, size: int = 28, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Random inverse transforms for `count` images of `size` × `size` pixels: float32 of shape (count, 2, 3)."""

        def uniform(low: float, high: float) -> torch.Tensor:
            return torch.empty(count).uniform_(low, high, generator=generator)

        dx, dy = (fraction * size for fraction in self.translate)
        return affine_matrices(
            angle=uniform(-self.degrees, self.degrees),
            translate=torch.stack([uniform(-dx, dx), uniform(-dy, dy)], dim=1).round(),
            scale=uniform(*self.scale),
            shear=uniform(-self.shear, self.shear),
            size=size,
        )


def affine_matrices(
    angle: torch.Tensor,
    translate: torch.Tensor,
    scale: torch.Tensor,
    shear: torch.Tensor,
    size: int = 28,
) -> torch.Tensor:
    """The inverse of rotation · scaling · shear · translation about the image's centre, as torchvision composes them.

    `angle` and `shear` (along x) in degrees, `scale` a factor, each of shape (N,); `translate` in pixels, shape (N, 2).
    Returns shape (N, 2, 3) in the coordinates of `torch.nn.functional.affine_grid`, where the image spans (-1, 1).
    """
    angle, shear = angle * (math.pi / 180), shear * (math.pi / 180)
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    inverse = (
        torch.stack(
            [
                torch.stack([cos - sin * tan, cos * tan + sin], dim=1),
                torch.stack([-sin, cos], dim=1),
            ],
            dim=1,
        )
        / scale[:, None, None]
    )
    shift = -inverse @ translate[:, :, None] * (2 / size)
    return torch.cat([inverse, shift], dim=2)


def affine(
    images: torch.Tensor, matrices: torch.Tensor, interpolation: str = "nearest"
) -> torch.Tensor:
    """Transform each image of a batch (N, 1, H, W) in [0, 1] by its own inverse matrix; out-of-bounds pixels are filled with 0."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(
        images, grid, mode=interpolation, padding_mode="zeros", align_corners=False
    )


class Loader:
    """Batches of tensors that are already on the device: no worker processes, and no Python code per image.

    Iterating yields `(data, target)` of up to `batch_size` images, augmented if `augment` is given, and normalised or in [0, 1].
    With a `generator` (on the CPU), every pass draws a new shuffle and new transforms from it: the same seed gives the same ones on
    every device. Without one, the order is that of the data set.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int = 250,
        *,
        generator: torch.Generator | None = None,
        augment: RandomAffine | None = None,
        normalized: bool = True,
    ):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator, self.augment, self.normalized = generator, augment, normalized

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        count, device = len(self.images), self.images.device
        order = (
            torch.randperm(count, generator=self.generator)
            if self.generator
            else torch.arange(count)
        )
        batches = order.to(device).split(self.batch_size)
        if self.augment:
            matrices = (
                self.augment.matrices(count, self.images.shape[-1], self.generator)
                .to(device)
                .split(self.batch_size)
            )
        for number, index in enumerate(batches):
            data = self.images.index_select(0, index)
            if self.augment:
                data = affine(data, matrices[number], self.augment.interpolation)
            yield normalize(data) if self.normalized else data, self.labels.index_select(0, index)
