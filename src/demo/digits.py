"""The trained network in use: image files in, digits out.

Images are prepared as MNIST's were: "size normalized to fit in a 20x20 pixel box while preserving
their aspect ratio", and centred in 28 × 28 "by computing the center of mass of the pixels"
(http://yann.lecun.com/exdb/mnist/). `ink.py` finds the ink; `page/prepare.js` mirrors both.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from .. import plots
from ..data import normalize
from ..experiments import load_model
from .ink import PART, find_ink

MAX_SIZE = 256  # pixels: larger images are reduced first, by a whole factor
MAX_BYTES = 220e6  # of a decoded image: 55 megapixels in colour, 220 in grey
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which MAX_BYTES replaces
THIN = 0.03  # of the square around the digit: the ink of a very thin pen
STROKE = 2.0  # pixels of 20, about as wide as most strokes of MNIST
LUMINANCE = np.float32([0.299, 0.587, 0.114])  # of red, green and blue
SURE = 0.95  # a confidence below it is a reason for doubt
SAME_PICTURE = ("MPO", "PSD")  # formats whose further frames are depth maps or layers

# What Pillow does not read, by what the file holds near its beginning.
ADVICE = {
    b"ftyphe": "HEIC: export it as JPEG, or pip install pillow-heif",
    b"ftypmif1": "HEIC: export it as JPEG, or pip install pillow-heif",
    b"%PDF-": "a PDF: export its page as PNG",
    b"<svg": "an SVG: export it as PNG",
}

with suppress(ImportError):  # optional
    import pillow_heif

    pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Digit:
    """What `read_digit` finds in an image."""

    pixels: torch.Tensor  # white on black, float32 in [0, 1] of shape (1, 28, 28)
    picture: np.ndarray  # grey as it was searched, float32 in [0, 1] of shape (height, width)
    box: tuple[int, int, int, int]  # of the digit in the picture: left, top, width, height
    doubts: list[str]  # why the reading may be wrong


def read_files(paths: Iterable[Path | str]) -> tuple[list[dict], list[Digit], list[str]]:
    """Classify the digit in each image file.

    Returns the results, the digit of each, and one line for each file that cannot be read. A result
    holds `file`, `digit`, `confidence`, `runner_up` (the second most probable digit), all ten
    `probabilities`, and `doubts`, a list of reasons why the reading may be wrong: "not sure" below
    SURE.
    """
    model, results, digits, errors = load_model(), [], [], []
    for path in paths:
        try:
            digit = read_digit(path)
        except ValueError as error:
            errors.append(str(error))
            continue
        with torch.no_grad():
            values = model(normalize(digit.pixels[None]))[0].exp()
        probabilities = values.tolist()
        best, runner_up = values.topk(2).indices.tolist()
        result = {"file": str(path), "digit": best, "confidence": probabilities[best]}
        result |= {"runner_up": runner_up, "probabilities": probabilities}
        result["doubts"] = weigh_doubts(digit.doubts, probabilities[best])
        results.append(result)
        digits.append(digit)
    return results, digits, errors


def weigh_doubts(doubts: list[str], confidence: float) -> list[str]:
    """The reasons for doubt that matter at this confidence, from 0 to 1.

    Most digits that touch the border are read well: this counts only if the network is not sure.
    """
    if confidence < SURE:
        return ["not sure", *doubts]
    return [doubt for doubt in doubts if doubt != "touches the border"]


def save_picture(results: Iterable[dict], digits: Iterable[Digit], path: Path | str) -> None:
    """Draw what `read_files` found: each picture with the digit's box, then the network's input."""
    images, rows = [], []
    for result, digit in zip(results, digits, strict=True):
        left, top, width, height = digit.box
        framed = np.pad(1 - digit.picture, 2)
        around = framed[top : top + height + 4, left : left + width + 4]
        around[[0, 1, -2, -1]] = 1  # a view: this draws the frame
        around[:, [0, 1, -2, -1]] = 1
        images += [torch.from_numpy(framed), digit.pixels]
        text = f"{result['digit']} ({100 * result['confidence']:.1f} %), next {result['runner_up']}"
        name = result["file"].encode(errors="backslashreplace").decode()  # it may not be UTF-8
        rows.append(f"{name[-30:]}\nPrediction: {text}")
    # A file's name may hold a $, which is no formula.
    options = {"text.parse_math": False, "text.usetex": False}
    # A constrained layout takes minutes for some hundred images.
    options |= {"figure.constrained_layout.use": False}
    options |= {"figure.subplot.bottom": 0, "figure.subplot.top": 1, "figure.subplot.left": 0.55}
    with matplotlib.rc_context(options):
        figure = plots.digits(images, columns=2, rows=rows)
        figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def read_digit(path: Path | str) -> Digit:
    """Find the digit in an image file.

    The file may have any format, mode and size that Pillow reads, up to MAX_BYTES decoded; the
    digit may be dark on light or light on dark, unevenly lit, or on a transparent background.
    Raises ValueError, in one line, if it is not an image, is too large or shows no digit.
    """
    grey = choose_channel(read_colours(path))
    ink, doubts = find_ink(grey)
    rows, columns = ink.max(axis=1).nonzero()[0], ink.max(axis=0).nonzero()[0]
    if not len(rows):
        raise ValueError(f"{path} shows no digit: its ink must stand out from its background")
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    if ink.sum() < THIN * max(height, width) ** 2:
        doubts.append("very thin")
    pixels = normalize_size(widen_strokes(ink[top : top + height, left : left + width]))
    return Digit(pixels, grey, (int(left), int(top), int(width), int(height)), doubts)


def read_colours(path: Path | str) -> np.ndarray:
    """Red, green and blue in [0, 1], of shape (height, width, 3), at most MAX_SIZE high and wide.

    Raises ValueError, in one line, if the file is not an image, is too large or has several pages.
    """
    try:
        with Image.open(path) as image:
            frames = 1 if image.format in SAME_PICTURE else getattr(image, "n_frames", 1)
            pixels = reduce_image(image)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except MemoryError as error:
        raise ValueError(f"{path} is too large to be decoded: {error}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is {describe_file(path)}") from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise ValueError(f"{path} is not a readable image ({type(error).__name__})") from error
    if frames > 1:
        raise ValueError(f"{path} has {frames} pages or frames: save the one with the digit alone")
    colours, alpha = pixels[..., :3], pixels[..., 3:]  # premultiplied: black where transparent
    # A transparent background becomes white behind dark strokes, black behind light ones.
    paper = 0.0 if (colours @ LUMINANCE).sum() > 0.5 * alpha.sum() else 1.0
    return colours + paper * (1 - alpha)


def describe_file(path: Path | str) -> str:
    """What a file is that Pillow cannot identify, with advice where there is any."""
    with open(path, "rb") as file:
        beginning = file.read(1000)
    for signature, advice in ADVICE.items():
        if signature in beginning:
            return advice
    return "not a readable image"


def find_range(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest of the finite values; 0 and 0 if there are none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


@np.errstate(invalid="ignore")  # NaN in files of floating-point numbers
def reduce_image(image: Image.Image) -> np.ndarray:
    """Red, green, blue and alpha in [0, 1], of shape (height, width, 4), as `read_colours` says.

    Colours are premultiplied by alpha. Large images are converted in strips, to save memory;
    MemoryError is raised for those of more than MAX_BYTES.
    """
    image.draft("RGB", (8 * MAX_SIZE, 8 * MAX_SIZE))  # JPEG decodes at 1/2, 1/4 or 1/8
    width, height = image.size
    if width * height * (1 if image.mode in ("1", "L", "P") else 4) > MAX_BYTES:
        raise MemoryError(f"{width} × {height} pixels")
    image.load()
    width, height = image.size  # older versions of Pillow turn a TIFF when they load it
    factor = math.ceil(max(image.size) / MAX_SIZE)
    step = factor * max(1, 2**20 // (width * factor))
    # These modes have no fixed range: theirs is the image's own.
    low, high = find_range(np.asarray(image)) if image.mode[0] in "IF" else (0, 0)
    strips = []
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        if 0 < high - low < np.inf:
            values = np.asarray(strip, np.float64)
            values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
            strip = Image.fromarray(np.uint8(255 * (values - low) / (high - low)))
        strips.append(strip.convert("RGBA").convert("RGBa").reduce(factor))
    small = Image.fromarray(np.concatenate(strips))
    small.info = image.info  # the orientation
    return np.asarray(ImageOps.exif_transpose(small), np.float32) / 255


def choose_channel(colours: np.ndarray) -> np.ndarray:
    """The luminance, unless red, green or blue varies much more: yellow on light blue."""
    channels = [colours @ LUMINANCE, *np.moveaxis(colours, -1, 0)]
    spreads = [float(channel.std()) for channel in channels]
    best = int(np.argmax(spreads))
    return channels[best if spreads[best] > 1.5 * spreads[0] else 0]


def widen_strokes(ink: np.ndarray) -> np.ndarray:
    """Widen strokes that would be thinner than MNIST's after scaling.

    Their width is twice their area, divided by the length of their outline. Returns the ink with a
    margin of the added width.
    """
    mask = np.pad(np.float64(ink > PART), 1)
    outline = np.hypot(np.diff(mask, axis=0)[:, 1:], np.diff(mask, axis=1)[1:]).sum()
    radius = round((STROKE * max(ink.shape) / 20 - 2 * mask.sum() / outline) / 2)
    return ndimage.maximum_filter(np.pad(ink, radius), 2 * radius + 1) if radius > 0 else ink


def normalize_size(ink: np.ndarray) -> torch.Tensor:
    """Scale ink to fit 20 × 20 pixels; centre its mass at pixel (14, 14), from 0, of 28 × 28."""
    longest = max(ink.shape)
    height, width = (max(1, round(20 * side / longest)) for side in ink.shape)
    method = Image.Resampling.BOX if longest > 20 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(np.float32(ink)).resize((width, height), method))
    small = small / small.max()
    # To three decimals first, so that rounding errors do not decide a tie.
    starts = (round(14 - float(centre), 3) for centre in ndimage.center_of_mass(small))
    top, left = (min(max(round(start), 0), 28 - n) for start, n in zip(starts, small.shape))
    digit = torch.zeros(1, 28, 28)
    digit[0, top : top + height, left : left + width] = torch.from_numpy(small)
    return digit
