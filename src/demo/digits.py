"""The trained network in use: image files in, digits out.

Images are prepared as MNIST's were: "size normalized to fit in a 20x20 pixel box while preserving their aspect ratio", and centred
in 28 × 28 "by computing the center of mass of the pixels" (http://yann.lecun.com/exdb/mnist/). Ink detection is our own.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import nn

from .. import plots
from ..data import normalize
from ..experiments import load_model

MAX_SIZE = 200  # pixels: larger images are reduced to this size first
MIN_CONTRAST = 0.1  # between ink and paper, as a fraction of the range from black to white


def read_files(paths: Iterable[str], picture: Path | None = None) -> tuple[list[dict], list[str]]:
    """Classify the digit in each image file; returns the results, and one line for each file that cannot be read.

    A result holds `file`, `digit`, `confidence`, `runner_up` (the second most probable digit) and all ten `probabilities`.
    `picture` is a file in which to draw each input of the network with its two most probable digits.
    """
    images, files, errors = [], [], []
    for path in paths:
        try:
            images.append(read_digit(path))
            files.append(str(path))
        except ValueError as error:
            errors.append(str(error))
    if not images:
        return [], errors
    with torch.no_grad():
        probabilities = Classifier()(torch.stack(images)).exp()
    results = []
    for file, values in zip(files, probabilities):
        digit, runner_up = values.topk(2).indices.tolist()
        results.append(
            {
                "file": file,
                "digit": digit,
                "confidence": values[digit].item(),
                "runner_up": runner_up,
                "probabilities": values.tolist(),
            }
        )
    if picture:
        titles = [
            "\n".join(f"{digit}: {values[digit]:.0%}" for digit in values.topk(2).indices)
            for values in probabilities
        ]
        plots.digits(torch.stack(images), titles, columns=6).savefig(picture)
    return results, errors


class Classifier(nn.Module):
    """The trained network of step 3, including the normalisation of its images.

    Takes images of shape (N, 1, 28, 28) in [0, 1], white on black; returns log-probabilities of shape (N, 10).
    """

    def __init__(self):
        super().__init__()
        self.model = load_model()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(normalize(images))


def read_digit(path: Path | str) -> torch.Tensor:
    """The digit in an image file, white on black: float32 in [0, 1] of shape (1, 28, 28).

    The file may have any format and size that Pillow reads; dark on light or light on dark, unevenly lit, or transparent.
    Raises ValueError, in one line, if it is not an image or shows no ink.
    """
    ink = _find_ink(_read_grey(path))
    rows, columns = ink.max(axis=1).nonzero()[0], ink.max(axis=0).nonzero()[0]
    if not len(rows):
        raise ValueError(f"{path} shows no ink: the digit must stand out from its background")
    return _normalize_size(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _read_grey(path: Path | str) -> np.ndarray:
    """The image in [0, 1] from black to white, at most MAX_SIZE pixels wide and high."""
    try:
        with Image.open(path) as opened:
            opened.draft("L", (MAX_SIZE, MAX_SIZE))
            image = ImageOps.exif_transpose(opened).convert("RGBA")
            image.thumbnail((MAX_SIZE, MAX_SIZE), Image.Resampling.BOX)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise ValueError(f"{path} is not a readable image ({type(error).__name__})") from error
    pixels = np.asarray(image, dtype=np.float32) / 255
    grey, alpha = pixels[..., :3] @ np.float32([0.299, 0.587, 0.114]), pixels[..., 3]
    # A transparent background becomes white behind dark strokes, black behind light ones.
    paper = 0.0 if (grey * alpha).sum() > 0.5 * alpha.sum() else 1.0
    return grey * alpha + paper * (1 - alpha)


def _find_ink(grey: np.ndarray) -> np.ndarray:
    """The amount of ink in each pixel, from 0 to 1; all 0 if nothing stands out from the paper."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    surface = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).reshape(-1, 6)
    values = grey.reshape(-1).astype(np.float64)
    # The paper is a quadratic surface through most of the pixels, fitted repeatedly without those that stand out.
    paper = np.full_like(values, np.median(values))
    for _ in range(5):
        distance = np.abs(values - paper)
        near = distance <= max(2 * np.median(distance), MIN_CONTRAST / 2)
        paper = surface @ np.linalg.lstsq(surface[near], values[near], rcond=None)[0]
    differences = (values - paper).reshape(height, width)
    differences *= (
        1 if differences[differences > 0].sum() > -differences[differences < 0].sum() else -1
    )
    strongest = np.percentile(differences, 99.5) if differences.size > 400 else differences.max()
    if strongest < MIN_CONTRAST:
        return np.zeros_like(differences)
    ink = np.clip(differences / strongest, 0, 1)
    ink[ink < max(0.05, min(0.4, 6 * np.abs(values - paper)[near].mean() / strongest))] = (
        0  # noise of the paper
    )
    if min(ink.shape) > 60:  # remove specks: pixels whose neighbourhood is paper in the median
        filtered = Image.fromarray(np.uint8(255 * ink)).filter(ImageFilter.MedianFilter(5))
        if filtered.getbbox():
            ink *= np.asarray(filtered.filter(ImageFilter.MaxFilter(5))) > 0
    return ink


def _normalize_size(ink: np.ndarray) -> torch.Tensor:
    """Scale the ink to fit 20 × 20 pixels and centre its mass at pixel (14, 14), counted from 0, of 28 × 28, as in MNIST."""
    height, width = ink.shape
    size = (max(1, round(20 * width / max(ink.shape))), max(1, round(20 * height / max(ink.shape))))
    small = np.asarray(
        Image.fromarray(np.float32(ink)).resize(
            size, Image.Resampling.BOX if max(ink.shape) > 20 else Image.Resampling.BILINEAR
        )
    )
    small = small / small.max()
    starts = [
        round(
            14
            - float((small.sum(axis=1 - axis) * np.arange(small.shape[axis])).sum() / small.sum())
        )
        for axis in (0, 1)
    ]
    top, left = (min(max(start, 0), 28 - small.shape[axis]) for axis, start in enumerate(starts))
    digit = torch.zeros(1, 28, 28)
    digit[0, top : top + small.shape[0], left : left + small.shape[1]] = torch.from_numpy(small)
    return digit
