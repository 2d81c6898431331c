"""Digits that are not MNIST's: of several fonts and hands, with the faults of people's pictures."""

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def typed(digit, font):
    image = Image.new("L", (160, 160), 255)
    ImageDraw.Draw(image).text(
        (80, 80),
        str(digit),
        font=ImageFont.truetype(str(FONTS / f"{font}.ttf"), 110),
        fill=0,
        anchor="mm",
    )
    return image


def arc(x, y, width, height, start, end):
    """Points on an ellipse, in a square of side 1; angles in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * step / 24) for step in range(25)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


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


def drawn(digit, width, slant=0.0, tremor=0.0):
    """A digit drawn with a pen of this width, in pixels of 160, leaning to the right, shaky."""
    image, random = Image.new("L", (160, 160), 255), np.random.default_rng(digit)
    draw = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        points = [
            (
                30 + 100 * (x + slant * (0.5 - y)) + random.normal(0, tremor),
                20 + 120 * y + random.normal(0, tremor),
            )
            for x, y in stroke
        ]
        draw.line(points, fill=0, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return image


def photo(image):
    """Unevenly lit, grey paper, noise, and JPEG's artefacts."""
    grey = np.asarray(ImageOps.expand(image, 60, 255).resize((700, 700)), dtype=float)
    y, x = np.mgrid[0:700, 0:700] / 700
    light = (90 + 0.35 * grey) * (0.6 + 0.5 * x - 0.2 * y) + np.random.default_rng(1).normal(
        0, 4, grey.shape
    )
    file = io.BytesIO()
    Image.fromarray(np.uint8(light.clip(0, 255))).save(file, "JPEG", quality=70)
    return Image.open(file)


def strokes_in(digit, size, width, seed=0, side=0.5):
    """The ink of a digit, from 0 to 1, in a square of `size` pixels; it takes up `side` of it.

    The pen is `width` pixels wide. Place, slant and the hand's tremor depend on the seed.
    """
    random, factor = np.random.default_rng(100 * digit + seed), max(1, round(600 / size))
    full, pen, slant = size * factor, width * factor, random.uniform(-0.1, 0.25)
    left, top = (
        random.uniform(0.1, max(0.11, 0.85 - 0.85 * side)),
        random.uniform(0.08, 0.92 - side),
    )
    image = Image.new("L", (full, full))
    draw = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        points = [
            (
                full * (left + side * 0.8 * (x + slant * (0.5 - y)) + random.normal(0, 0.004)),
                full * (top + side * y + random.normal(0, 0.004)),
            )
            for x, y in stroke
        ]
        draw.line(points, fill=255, width=max(1, round(pen)), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return np.asarray(image.reduce(factor)) / 255


def picture(values, noise=0.0, seed=0):
    """Grey values from 0 to 255, with noise and JPEG's artefacts unless `noise` is 0."""
    values = values + np.random.default_rng(seed).normal(0, noise, values.shape)
    image = Image.fromarray(np.uint8(values.clip(0, 255).round()))
    if not noise:
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def clean(size, pen, side=0.6):
    return lambda digit, seed: picture(255 - 255 * strokes_in(digit, size, pen, seed, side))


def on_paper(level, contrast, light=lambda x, y, seed: 1, noise=4, pen=11, side=0.45):
    """Ink on paper of this level, under a light that depends on x and y, from 0 to 1."""

    def draw(digit, seed):
        y, x = np.mgrid[0:400, 0:400] / 400
        ink = strokes_in(digit, 400, pen, seed, side)
        return picture(level * (1 - contrast * ink) * light(x, y, seed), noise, seed)

    return draw


def step(distance, width=0.02):
    """From 0, far on the negative side, to 1."""
    return 1 / (1 + np.exp(-distance / width))


def frame(digit, seed, gap=0):
    image = clean(400, 12)(digit, seed)
    box = (gap, gap, 399 - gap, 399 - gap)
    ImageDraw.Draw(image).rectangle(box, outline=0, width=2 + 2 * seed)
    return image


def sheet(digit, seed):
    """A grey sheet on a white page."""
    page, start, size = (
        np.full((400, 400), 255.0),
        (40, 70, 60)[seed % 3],
        (220, 260, 300)[seed % 3],
    )
    ink = strokes_in(digit, size, 7, seed, 0.6)
    page[start : start + size, start - 30 : start - 30 + size] = 185 * (1 - 0.7 * ink)
    return picture(page, 2, seed)


def bleed_through(digit, seed):
    back = strokes_in((digit + 3) % 10, 400, 12, seed + 7)[:, ::-1]
    back = ndimage.gaussian_filter(back, 3)
    return picture(210 * (1 - 0.7 * strokes_in(digit, 400, 12, seed)) * (1 - 0.16 * back), 3, seed)


def specks(digit, seed):
    image, random = clean(400, 12)(digit, seed), np.random.default_rng(seed)
    for x, y, size in random.uniform((0, 0, 1), (400, 400, 4), (15, 3)):
        ImageDraw.Draw(image).ellipse((x, y, x + size, y + size), fill=40)
    return image


def dashes(digit, seed):
    ink = strokes_in(digit, 300, 9, seed)
    gaps = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=ink.shape), 3) > 0.09
    return picture(255 - 255 * ink * ~gaps)


def two_parts(digit, seed):
    ink = strokes_in(digit, 400, 12, seed)
    middle = int(ink.max(axis=1).nonzero()[0].mean())
    ink[middle - 4 : middle + 4] = 0
    return picture(255 - 255 * ink)


def cut_off(digit, seed):
    ink = strokes_in(digit, 400, 24, seed, 0.8)
    end = ink.max(axis=1).nonzero()[0][-1]
    return picture(255 - 255 * ink[: end - 5])


def coloured(paper, pen):
    def draw(digit, seed):
        ink = strokes_in(digit, 300, 12, seed)[..., None]
        return Image.fromarray(np.uint8(np.array(paper) * (1 - ink) + np.array(pen) * ink))

    return draw


def deep(kind, scale):
    """Sixteen bits or floating point."""
    return lambda digit, seed: Image.fromarray(
        kind(scale - scale * strokes_in(digit, 300, 10, seed))
    )


def transparent(digit, seed):
    colour = [(20, 30, 160), (255, 255, 255), (255, 255, 0)][seed % 3]
    image = Image.new("RGBA", (600, 600), (*colour, 0))
    image.putalpha(Image.fromarray(np.uint8(255 * strokes_in(digit, 600, 20, seed))))
    return image


def mode(name):
    return lambda digit, seed: clean(200, 10)(digit, seed).convert("RGB").convert(name)


# Each kind of fault that people's pictures have: a function of the digit and a seed.
KINDS = {
    **{f"pen of {pen / 10:g} %": clean(1000, pen, 0.5) for pen in (3, 5, 10, 50, 120)},
    **{
        f"{size} pixels": clean(size, 0.07 * size, 0.75) for size in (10, 14, 20, 28, 60, 300, 1200)
    },
    "frame": frame,
    "frame inside": lambda digit, seed: frame(digit, seed, 5),
    "edge of the sheet": on_paper(
        190, 0.7, lambda x, y, s: 0.3 + 0.7 * (x + 0.08 * y > 0.06 + 0.02 * s)
    ),
    "shadow along the border": on_paper(200, 0.7, lambda x, y, s: 0.4 + 0.6 * step(x - 0.08)),
    "dark corners": on_paper(200, 0.6, lambda x, y, s: 1 - 1.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)),
    "paper of two tones": on_paper(
        190, 0.75, lambda x, y, s: 0.65 + 0.35 * step(y - 0.4 - 0.1 * s)
    ),
    "shadow of a hand": on_paper(
        190, 0.75, lambda x, y, s: 0.6 + 0.4 * step(np.hypot(x - [1, 0, 0.9][s], y - 1) - 0.6)
    ),
    "grey sheet on a white page": sheet,
    "pencil": on_paper(205, 0.16, pen=5),
    "yellow on light blue": coloured((173, 216, 230), (250, 240, 60)),
    "red on green": coloured((120, 200, 120), (230, 110, 110)),
    "bleed-through": bleed_through,
    "specks": specks,
    "ruled paper": on_paper(230, 0.8, lambda x, y, s: 1 - 0.2 * (np.round(400 * y) % 60 == 40), 3),
    "chalk": on_paper(60, -2.5, lambda x, y, s: 0.7 + 0.5 * x - 0.2 * y, 6, 14),
    "dashes": dashes,
    "two parts": two_parts,
    "cut off": cut_off,
    "low contrast": on_paper(140, 0.15, noise=0),
    "inverted": lambda digit, seed: ImageOps.invert(clean(300, 3 + 10 * seed)(digit, seed)),
    "sixteen bits": deep(np.uint16, 65535),
    "twelve of sixteen bits": deep(np.uint16, 4095),
    "floating point": deep(np.float32, 1),
    "transparent": transparent,
    **{f"mode {name}": mode(name) for name in ("1", "P", "CMYK")},
}
