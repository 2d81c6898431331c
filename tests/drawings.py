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
    ImageDraw.Draw(image).text((80, 80), str(digit), font=ImageFont.truetype(str(FONTS / f"{font}.ttf"), 110), fill=0, anchor="mm")
    return image


def arc(x, y, width, height, start, end):
    """Points on an ellipse, in a square of side 1; angles in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * step / 24) for step in range(25)]
    return [(x + width * math.cos(angle), y + height * math.sin(angle)) for angle in angles]


STROKES = [
    [arc(.5, .5, .3, .45, -90, 270)],
    [[(.35, .25), (.55, .06), (.5, .95)]],
    [arc(.48, .3, .27, .25, -170, 40) + [(.2, .93), (.82, .9)]],
    [arc(.45, .28, .27, .22, -150, 90) + arc(.45, .7, .3, .23, -90, 150)],
    [[(.6, .05), (.15, .6), (.85, .6)], [(.65, .35), (.62, .97)]],
    [[(.75, .07), (.3, .08), (.26, .45)] + arc(.46, .66, .3, .27, -120, 140)],
    [[(.65, .05), (.35, .4)] + arc(.5, .7, .25, .25, -160, 200)],
    [[(.18, .1), (.8, .1), (.42, .95)]],
    [arc(.5, .27, .22, .21, 90, 450) + arc(.5, .71, .27, .24, -90, 270)],
    [arc(.48, .3, .24, .24, 0, -360) + [(.72, .3), (.66, .95)]],
]


def drawn(digit, width, slant=0.0, tremor=0.0):
    """A digit drawn with a pen of this width, in pixels of 160, leaning to the right, with a hand that shakes."""
    image, random = Image.new("L", (160, 160), 255), np.random.default_rng(digit)
    draw = ImageDraw.Draw(image)
    for stroke in STROKES[digit]:
        points = [(30 + 100 * (x + slant * (.5 - y)) + random.normal(0, tremor), 20 + 120 * y + random.normal(0, tremor))
                  for x, y in stroke]
        draw.line(points, fill=0, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return image


def photo(image):
    """Unevenly lit, grey paper, noise, and JPEG's artefacts."""
    grey = np.asarray(ImageOps.expand(image, 60, 255).resize((700, 700)), dtype=float)
    y, x = np.mgrid[0:700, 0:700] / 700
    light = (90 + .35 * grey) * (0.6 + .5 * x - .2 * y) + np.random.default_rng(1).normal(0, 4, grey.shape)
    file = io.BytesIO()
    Image.fromarray(np.uint8(light.clip(0, 255))).save(file, "JPEG", quality=70)
    return Image.open(file)
