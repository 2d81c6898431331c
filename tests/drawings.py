"""Digits that are not MNIST's: of several fonts and hands, with the faults of people's pictures."""

import io
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.ndimage import gaussian_filter as blurred

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def arc(x, y, width, height, start, end):
    """Points on an ellipse, in a square of side 1; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 25))
    return [*zip(x + width * np.cos(angles), y + height * np.sin(angles))]


STROKES = [
    [arc(0.5, 0.5, 0.3, 0.45, -90, 270)],
    [[(0.35, 0.25), (0.55, 0.06), (0.5, 0.95)]],
    [arc(0.48, 0.3, 0.27, 0.25, -170, 40) + [(0.2, 0.93), (0.82, 0.9)]],
    [arc(0.45, 0.28, 0.27, 0.22, -150, 90) + arc(0.45, 0.7, 0.3, 0.23, -90, 150)],
    [[(0.6, 0.05), (0.15, 0.6), (0.85, 0.6)], [(0.65, 0.35), (0.62, 0.97)]],
    [[(0.75, 0.07), (0.3, 0.08), (0.26, 0.45)] + arc(0.46, 0.66, 0.3, 0.27, -120, 140)],
    [[(0.65, 0.05), (0.35, 0.4)] + arc(0.5, 0.7, 0.25, 0.25, -160, 200)],
    [[(0.18, 0.1), (0.8, 0.1), (0.42, 0.95)]],
    [arc(0.5, 0.27, 0.22, 0.21, 90, 450) + arc(0.5, 0.71, 0.27, 0.24, -90, 270)],
    [arc(0.48, 0.3, 0.24, 0.24, 0, -360) + [(0.72, 0.3), (0.66, 0.95)]],
]


@cache
def strokes_in(digit, seed, size, pen, side):
    """The ink of a digit, from 0 to 1, in a square of `size` pixels; it takes up `side` of it.

    The pen is `pen` pixels wide. Place, slant and the hand's tremor depend on the seed.
    """
    random, factor = np.random.default_rng(100 * digit + seed), max(1, round(600 / size))
    full, radius, slant = size * factor, pen * factor / 2, random.uniform(-0.1, 0.25)
    corner = random.uniform(0.1, (max(0.11, 0.85 - 0.85 * side), max(0.11, 0.92 - side)))
    image = Image.new("L", (full, full))
    draw = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        points = np.array(stroke) * (0.8, 1)
        points[:, 0] += 0.8 * slant * (0.5 - points[:, 1])
        points = full * (corner + side * points + random.normal(0, 0.004, points.shape))
        draw.line([*map(tuple, points)], 255, max(1, round(2 * radius)), "curve")
        for x, y in points[[0, -1]]:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    return np.asarray(image.reduce(factor)) / 255


def picture(grey=lambda ink, x, y, seed: 255 - 255 * ink, noise=0, size=400, pen=12, side=0.6):
    """A function of a digit and a seed that draws: its image has these grey values, or colours.

    `grey` makes them from the ink, at places from 0 to 1. With noise come JPEG's artefacts.
    """

    def draw(digit, seed=0):
        ink = strokes_in(digit, seed, size, pen, side)
        y, x = np.indices(ink.shape) / size
        values = grey(ink, x, y, seed)
        if values.dtype != np.float64:  # deep: as it is
            return Image.fromarray(values)
        values = values + np.random.default_rng(seed).normal(0, noise, values.shape)
        image = Image.fromarray(np.uint8(values.clip(0, 255).round()))
        if not noise:
            return image
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        return Image.open(file)

    return draw


def typed(font):
    def draw(digit, seed=0):
        image, face = Image.new("L", (160, 160), 255), ImageFont.truetype(FONTS / font, 110)
        ImageDraw.Draw(image).text((80, 80), str(digit), 0, face, "mm")
        return image

    return draw


def step(distance):
    """From 0, far on the negative side, to 1."""
    return 1 / (1 + np.exp(-distance / 0.02))


def blots(ink, seed, size):
    """Noise with blots of this size in pixels."""
    return blurred(np.random.default_rng(seed).normal(size=ink.shape), size)


def rows(ink):
    """The first and the last row with ink."""
    return ink.max(axis=1).nonzero()[0][[0, -1]]


def framed(ink, x, y, seed):
    """A frame around the picture or, with an odd seed, a little inside it."""
    distance = 400 * np.minimum(np.minimum(x, y), 1 - 1 / 400 - np.maximum(x, y))
    gap = seed % 2 * 5
    return 255 * (1 - ink) * ((distance < gap) | (distance >= gap + 2 + 2 * seed))


def under_a_phone(x, y, seed):
    """The shadow of the phone that takes the picture: dark from the left, with a hard edge."""
    return 1 - 0.5 * (x + 0.6 * y < 0.7 + 0.05 * seed)


def rules(y, every, width=0.007):
    """Printed lines: 1 on a line, 0 between two."""
    return (y + 0.03) % every < width


def squares(x, y, every):
    return rules(x, every) | rules(y, every)


def sheet(x, y, seed):
    """A sheet, and a dark desk to the left and below."""
    return 0.2 + 0.8 * ((x > 0.05 + 0.01 * seed) & (y + 0.03 * x < 0.97))


def cropped(margin):
    """Digits of a thin pen, whose strokes reach from border to border, but for this margin."""

    def draw(digit, seed=0):
        image = picture(pen=5, side=0.8)(digit, seed)
        left, top, right, bottom = ImageOps.invert(image).getbbox()
        return image.crop((left - margin, top - margin, right + margin, bottom + margin))

    return draw


def beside_others(ink, x, y, seed):
    """A digit at the lower border, between two that are cut off."""
    others = np.roll(ink, (40, 200), (0, 1))
    return 255 - 255 * np.maximum(ink, others)[: rows(ink)[1] + 3]


def on_paper(light=lambda x, y, seed: 1, level=190, contrast=0.75, **options):
    """Ink on paper of this grey level, under a light that depends on the place."""
    grey = lambda ink, x, y, seed: level * (1 - contrast * ink) * light(x, y, seed)
    return picture(grey, noise=4, **options)


def coloured(paper, pen):
    return picture(lambda ink, *_: ink[..., None] * pen + (1 - ink[..., None]) * paper, size=300)


def mode(name):
    return lambda digit, seed: clean(digit, seed).convert("RGB").convert(name)


clean = picture()

# Each kind of fault that people's pictures have: a function of the digit and a seed.
KINDS = {
    **{f"font {name}": typed(f"DejaVu{name}.ttf") for name in ("Sans-Bold", "Serif")},
    **{f"pen of {pen / 10:g} %": picture(size=1000, pen=pen, side=0.5) for pen in (3, 10, 120)},
    **{f"{n} pixels": picture(size=n, pen=0.07 * n, side=0.75) for n in (10, 28, 1200)},
    **{f"mode {name}": mode(name) for name in ("1", "P", "CMYK")},
    "rotated": lambda digit, seed: clean(digit, seed).rotate(8, fillcolor=255),
    "inverted": picture(lambda ink, *_: 255 * ink),
    "frame": picture(framed),
    "edge of the sheet": on_paper(lambda x, y, s: 0.3 + 0.7 * (x + 0.08 * y > 0.06 + 0.02 * s)),
    "dark corners": on_paper(lambda x, y, _: 1 - 1.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)),
    "paper of two tones": on_paper(lambda x, y, s: 0.65 + 0.35 * step(y - 0.4 - 0.1 * s)),
    "shadow of a hand": on_paper(lambda x, y, _: 0.6 + 0.4 * step(np.hypot(x, y - 1) - 0.6)),
    "ruled paper": on_paper(lambda x, y, _: 1 - 0.2 * (np.round(400 * y) % 60 == 40)),
    "chalk": on_paper(lambda x, y, _: 0.7 + 0.5 * x - 0.2 * y, 60, -2.5),
    "pencil": on_paper(contrast=0.16, pen=5),
    "low contrast": picture(lambda ink, *_: 140 - 21 * ink),
    "bleed-through": picture(lambda ink, *_: 210 - 147 * ink - 34 * blurred(ink[:, ::-1], 3)),
    "specks": picture(lambda ink, x, y, seed: 255 * (1 - ink) * (blots(ink, seed, 1) < 1)),
    "dashes": picture(lambda ink, x, y, seed: 255 - 255 * ink * (blots(ink, seed, 3) < 0.09)),
    "two parts": picture(
        lambda ink, x, y, _: 255 - 255 * ink * (abs(400 * y - rows(ink).mean()) > 4)
    ),
    "cut off": picture(lambda ink, *_: 255 - 255 * ink[: rows(ink)[1] - 5], pen=24, side=0.8),
    "yellow on light blue": coloured((173, 216, 230), (250, 240, 60)),
    "red on green": coloured((120, 200, 120), (230, 110, 110)),
    "transparent": coloured((20, 30, 160, 0), (20, 30, 160, 255)),
    "white on transparent": coloured((255, 255, 255, 0), (255, 255, 255, 255)),
    "sixteen bits": picture(lambda ink, *_: np.uint16(65535 - 65535 * ink)),
    "twelve of sixteen bits": picture(lambda ink, *_: np.uint16(4095 - 4095 * ink)),
    "floating point": picture(lambda ink, *_: np.float32(1 - ink)),
    "shadow of the phone": on_paper(under_a_phone, pen=14, side=0.7),
    "light from one side": on_paper(lambda x, *_: 0.3 + 0.7 * x, contrast=0.4, pen=8, side=0.7),
    "dark rules": on_paper(lambda x, y, _: 1 - 0.5 * rules(y, 0.09)),
    "tilted rules": on_paper(lambda x, y, _: 1 - 0.4 * rules(y + 0.03 * x, 0.11)),
    "squared paper": on_paper(lambda x, y, _: 1 - 0.25 * squares(x, y, 0.08)),
    "pencil on squared paper": on_paper(
        lambda x, y, _: 1 - 0.12 * squares(x, y, 0.12), contrast=0.3, pen=7
    ),
    "pencil on rough paper": picture(lambda ink, *_: 190 - 76 * ink, noise=14, pen=3),
    "small, beside a desk": on_paper(sheet, pen=5, side=0.17),
    "small, in a frame": picture(lambda ink, x, y, s: framed(ink, x, y, 2 * s), pen=5, side=0.17),
    "beside others": picture(beside_others, side=0.42),
    "thin, cropped": cropped(0),
    "thin, in a narrow margin": cropped(15),
}


def save(image, folder, name="digit"):
    """Save an image in a format that has its mode; returns the path."""
    path = folder / f"{name}.{'tiff' if image.mode in ('I', 'F', 'CMYK') else 'png'}"
    image.save(path, **{} if path.suffix == ".tiff" else {"compress_level": 1})
    return path
