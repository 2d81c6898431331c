"""Digits from image files, prepared the way the images of MNIST were.

NIST's digits were "size normalized to fit in a 20x20 pixel box while preserving their aspect ratio"; the result, with the grey
levels of anti-aliasing, was centred in 28 × 28 "by computing the center of mass of the pixels"
(http://yann.lecun.com/exdb/mnist/). What comes before that, telling ink from paper, is our own.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

LARGEST = 200         # pixels: a larger image is reduced to this before it is looked at
LEAST_CONTRAST = 0.1  # between ink and paper, of the range from black to white


def read_digit(path: Path | str) -> torch.Tensor:
    """The digit in an image file, white on black: float32 in [0, 1] of shape (1, 28, 28).

    The file may be of any kind and size that Pillow reads, dark on light or light on dark, unevenly lit, or transparent.
    Raises ValueError, in one line, where it is no image or shows no ink.
    """
    ink = _ink(_grey(path))
    rows, columns = ink.max(axis=1).nonzero()[0], ink.max(axis=0).nonzero()[0]
    if not len(rows):
        raise ValueError(f"{path} shows no ink: a digit has to stand out from its background")
    return _normalise(ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])


def _grey(path: Path | str) -> np.ndarray:
    """The image in [0, 1] from black to white, at most LARGEST pixels wide and high."""
    try:
        with Image.open(path) as opened:
            opened.draft("L", (LARGEST, LARGEST))
            image = ImageOps.exif_transpose(opened).convert("RGBA")
            image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        raise ValueError(f"{path} is no image that can be read ({type(error).__name__})") from error
    pixels = np.asarray(image, dtype=np.float32) / 255
    grey, alpha = pixels[..., :3] @ np.float32([0.299, 0.587, 0.114]), pixels[..., 3]
    # What is transparent becomes the opposite of what is not.
    paper = 0.0 if (grey * alpha).sum() > 0.5 * alpha.sum() else 1.0
    return grey * alpha + paper * (1 - alpha)


def _ink(grey: np.ndarray) -> np.ndarray:
    """How much ink there is in each pixel, from 0 to 1; all 0 where nothing stands out from the paper."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    surface = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1).reshape(-1, 6)
    values = grey.reshape(-1).astype(np.float64)
    # The paper: a smooth surface through most of the pixels, fitted again and again without those that stand out.
    paper = np.full_like(values, np.median(values))
    for _ in range(5):
        distance = np.abs(values - paper)
        near = distance <= max(2 * np.median(distance), LEAST_CONTRAST / 2)
        paper = surface @ np.linalg.lstsq(surface[near], values[near], rcond=None)[0]
    differences = (values - paper).reshape(height, width)
    differences *= 1 if differences[differences > 0].sum() > -differences[differences < 0].sum() else -1
    strongest = np.percentile(differences, 99.5) if differences.size > 400 else differences.max()
    if strongest < LEAST_CONTRAST:
        return np.zeros_like(differences)
    ink = np.clip(differences / strongest, 0, 1)
    ink[ink < max(0.05, min(0.4, 6 * np.abs(values - paper)[near].mean() / strongest))] = 0  # the paper's own noise
    # A speck is not ink: the median of its neighbourhood is paper.
    if min(ink.shape) > 60:
        blurred = Image.fromarray(np.uint8(255 * ink)).filter(ImageFilter.MedianFilter(5))
        grown = blurred.filter(ImageFilter.MaxFilter(5))
        if blurred.getbbox():
            ink *= np.asarray(grown) > 0
    return ink


def _normalise(ink: np.ndarray) -> torch.Tensor:
    """Ink to 20 × 20 pixels, its centre of mass to pixel (14, 14), counted from 0, of 28 × 28: there it lies in MNIST."""
    height, width = ink.shape
    size = (max(1, round(20 * width / max(ink.shape))), max(1, round(20 * height / max(ink.shape))))
    small = np.asarray(Image.fromarray(np.float32(ink)).resize(size, Image.Resampling.BOX if max(ink.shape) > 20 else
                                                               Image.Resampling.BILINEAR))
    small = small / small.max()
    starts = [round(14 - float((small.sum(axis=1 - axis) * np.arange(small.shape[axis])).sum() / small.sum())) for axis in (0, 1)]
    top, left = (min(max(start, 0), 28 - small.shape[axis]) for axis, start in enumerate(starts))
    digit = torch.zeros(1, 28, 28)
    digit[0, top:top + small.shape[0], left:left + small.shape[1]] = torch.from_numpy(small)
    return digit
