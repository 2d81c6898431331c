"""Where the ink of a digit is in a grey picture; `page/prepare.js` mirrors this file.

The method is our own: ink is what is darker than the paper, which a closing finds, and the digit
is chosen from the connected parts of the ink.
"""

import numpy as np
from scipy import ndimage

MIN_CONTRAST = 0.06  # between ink and paper, as a fraction of the range from black to white
PART = 0.3  # of the strongest ink: the lowest contrast of a part of the digit
SMALL = 60  # pixels: such images may be cropped to their ink, and show neither rules nor noise


def find_ink(grey: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The ink in each pixel, from 0 to 1, and the reasons for doubt; all 0 if there is no digit.

    `grey` and the ink have shape (height, width); grey is in [0, 1].
    """
    height, width = grey.shape
    large = max(grey.shape) > SMALL
    if not is_paper_light(grey):
        grey = 1 - grey
    ink = find_paper(grey) - grey
    # First inside, where neither a frame nor the edge of the sheet is. Without ink, everywhere.
    y, x = height // 8, width // 8
    strongest = np.percentile(ink[y : height - y, x : width - x], 99.9)
    if strongest < MIN_CONTRAST:
        strongest = np.percentile(ink, 99.9)
    noise = np.median(ink)  # of the paper: the closing finds its lightest grey
    # The median pixel of a digit is paper, or ink; half-way between, there is noise and no digit.
    if strongest < MIN_CONTRAST or (large and 1 / 3 < noise / strongest < 2 / 3):
        return np.zeros_like(ink), []
    # Above the noise, but below the weaker strokes even of a noisy picture.
    lowest = max(PART * strongest, min(3 * noise, 0.4 * strongest))
    if large:
        faint = (noise + lowest) / 2
        ink = remove_rules(ink, faint)
        ink = remove_rules(ink.T, faint).T
    mask = ink > lowest
    if not mask.any():
        return np.zeros_like(ink), []
    parts, doubts = choose_parts(mask, ink)
    if strongest < 0.15:
        doubts.append("low contrast")
    near = ndimage.maximum_filter(parts, 3)  # with the soft edges of the strokes
    return np.where(near & (ink > 0.05 * strongest), np.clip(ink / strongest, 0, 1), 0), doubts


def window_size(shape: tuple[int, int]) -> int:
    """The side of a window wider than any stroke.

    It is an odd number of pixels, about a third of the longer side.
    """
    return max(shape) // 6 * 2 + 3


def is_paper_light(grey: np.ndarray) -> bool:
    """Whether the pixels are mostly nearer to the lightest than to the darkest around them.

    Pixels at the border, without the outermost ones (a frame), count for those beyond it: in an
    image that is cropped to its ink, the corners are paper.
    """
    window = window_size(grey.shape)
    y, x = grey.shape[0] // 24, grey.shape[1] // 24
    padded = np.pad(grey[y : grey.shape[0] - y, x : grey.shape[1] - x], window, mode="edge")
    light = ndimage.maximum_filter(padded, window)
    dark = ndimage.minimum_filter(padded, window)
    return bool(((2 * padded - light - dark) * (light - dark)).sum() >= 0)


def find_paper(grey: np.ndarray) -> np.ndarray:
    """The grey of the paper in each pixel, of the shape of `grey`.

    A closing fills all that is narrower than a window. A shadow or a sheet, which are wider, belong
    to the paper, with sharp edges.
    """
    window = window_size(grey.shape)
    inside = np.s_[window:-window, window:-window]
    if max(grey.shape) > SMALL:
        # Beyond the picture the paper goes on, in the light or the shadow at the border.
        padded = np.pad(ndimage.grey_closing(grey, window), window, mode="edge")
        padded[inside] = grey
    else:
        padded = np.pad(grey, window, constant_values=grey.max())
    return ndimage.grey_closing(padded, window)[inside]


def remove_rules(ink: np.ndarray, lowest: float) -> np.ndarray:
    """Remove the horizontal lines of ruled or squared paper, but not the strokes that cross them.

    A rule is straight, has more than the lowest ink, and reaches from the left border to the right.
    """
    height, width = ink.shape
    wide = ndimage.maximum_filter(ink > lowest, (5, 1))  # a rule may be a little tilted
    straight = ndimage.grey_opening(wide, (1, width // 4 * 2 + 1))
    labels, _ = ndimage.label(straight, np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        reaches = columns.start <= 0.02 * width and columns.stop >= 0.98 * width
        cropped = rows.start == 0 or rows.stop == height  # such as the top of a 7
        if cropped or not reaches:
            labels[labels == number] = 0
    thickness = max(ink.shape) // 80 * 2 + 1  # pixels: more than a rule's, less than a stroke's
    return np.where(labels, ndimage.grey_opening(ink, (thickness, 1)), ink)


def choose_parts(mask: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The parts of the mask that make up the digit, and the reasons for doubt.

    The main part is the one that extends furthest; its extent counts a fifth if it touches the
    border, and a fiftieth if it lies along it: a neighbour, a shadow or a frame gives way to a
    digit. Other parts with a twentieth of its ink are added unless they touch the border.
    """
    height, width = mask.shape
    reach = 3 if max(mask.shape) > SMALL else 1  # closes the gaps of a broken stroke
    labels, count = ndimage.label(ndimage.maximum_filter(mask, reach), np.ones((3, 3)))
    labels *= mask
    boxes, numbers = ndimage.find_objects(labels), np.arange(1, count + 1)
    mass = ndimage.sum_labels(ink, labels, numbers)
    y, x = height // 32, width // 32
    gaps = [(r.start - y, c.start - x, height - y - r.stop, width - x - c.stop) for r, c in boxes]
    touching = np.min(gaps, axis=1) <= 0
    extent = np.array([max(r.stop - r.start, c.stop - c.start) for r, c in boxes])
    # A digit that is cut off crosses the border; a frame or a desk lies along it.
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    contact = np.bincount(border, minlength=count + 1)[1:]
    weight = np.select([contact > 0.8 * extent, touching], [0.02, 0.2], 1)
    main = np.argmax(extent * weight)
    chosen = (mass >= mass[main] / 20) & ~touching
    chosen[main] = True
    reasons = {"touches the border": touching[main], "several parts": chosen.sum() > 1}
    return np.isin(labels, numbers[chosen]), [name for name, applies in reasons.items() if applies]
