"""Digits that are not MNIST's, of several fonts and hands."""

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

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
    """A digit drawn with a pen of this width, in pixels of 160, leaning to the right, with a hand that shakes."""
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
