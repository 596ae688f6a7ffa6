"""Find the cell first: from a crop of any size and stain to the canonical crop that the network sees.

Laboratories differ in two ways before they differ in biology: how much of the picture the cell fills, and
how stain and lamp colour it. Both are removed here, by classical means, in well under a millisecond:

1. the bright background gives the white point, so that colours become optical densities (Beer-Lambert);
2. the nucleus is what absorbs green far more than blue (two-level Otsu threshold); the lobes near its
   main piece are joined;
3. a square scaled by the nucleus's extent is cut out and resized;
4. the median nucleus gets the same optical density everywhere, channel by channel.

What the square does not show, the size, is told beside it where red cells around it give the scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wbc_batch.classifier.red_cells import red_cell_diameter
from wbc_batch.errors import ModelError

__all__ = [
    "LARGEST",
    "REVISION",
    "VIEWS",
    "CanonicalCrop",
    "CellRegion",
    "Preprocessing",
    "background_colour",
    "canonical_crop",
    "density_table",
    "find_cell",
    "stacked",
]

#: Raised when the same picture and the same numbers begin to give other canonical crops or sizes.
REVISION = 2

#: What a network can see of a picture.
VIEWS = ("cell", "image")


#: Side of the largest canonical crop, pixels; above, memory runs out.
LARGEST = 1024


@dataclass(frozen=True)
class Preprocessing:
    """The numbers that define a canonical crop; a model bundle carries the ones it was trained with.

    Attributes
    ----------
    size : int
        Side of the canonical crop, pixels.
    context : float
        Side of the square that is cut out, in extents of the nucleus.
    nucleus_density : tuple of float
        Optical density (natural logarithm) that the median nucleus gets in red, green and blue.
    balance : float
        How far a channel's density goes towards that: 0 leaves the stain as it is, 1 makes nuclei alike.
    max_gain : float
        Densities are scaled by at most this factor, and at least by its inverse.
    margin : float
        The square becomes this much wider still. 1 but for training crops, which are turned and shifted; the
        whole picture gets a mirrored border.
    view : {"cell", "image"}
        What the network sees: the canonical crop, or the whole picture in its colours, made square. Most
        foreign networks were trained on the latter; it heeds only `size` and `margin`.
    """

    size: int = 96
    context: float = 1.6
    nucleus_density: tuple[float, float, float] = (0.9, 1.6, 0.3)
    balance: float = 1.0
    max_gain: float = 2.5
    margin: float = 1.0
    view: str = "cell"

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise ModelError(
                f"unknown view {self.view!r} of an image; this version knows {', '.join(VIEWS)}"
            )

    @property
    def input(self) -> str:
        """What the network sees, in words."""
        kind = "whole images" if self.view == "image" else "canonical crops"
        return f"{kind} of {self.size} pixels"


@dataclass(frozen=True)
class CellRegion:
    """Where the cell lies and what colours it, in one crop.

    Attributes
    ----------
    x, y : float
        Centre of the nucleus, pixels from the top left corner.
    extent : float
        Diameter of the nucleus (all lobes together), pixels.
    background : tuple of float
        Colour of the bright background, red, green, blue, 0..255.
    nucleus_density : tuple of float
        Median optical density of the nucleus in red, green and blue (natural logarithm).
    red_cell : float
        Diameter of the red cells around it, pixels; NaN where they do not show.
    found : bool
        False where no nucleus stood out; the other values then describe the middle of the picture.
    """

    x: float
    y: float
    extent: float
    background: tuple[float, float, float]
    nucleus_density: tuple[float, float, float]
    red_cell: float
    found: bool


@dataclass(frozen=True, slots=True)
class CanonicalCrop:
    """What a model is given of a cell.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (size, size, 3)
    nucleus_size : float
        Diameter of the nucleus (all lobes together), in diameters of the red cells around it; NaN where
        they do not show, and for whole pictures.
    """

    pixels: NDArray[np.uint8]
    nucleus_size: float


# The finder works on a small copy: a nucleus needs no more pixels to be found.
_WORK_SIDE = 90
_BINS = 64
_SPLITS = np.triu_indices(_BINS - 1, k=1)
_MAX_SCORE = 3.2  # beyond this, darkness says nothing more about being a nucleus


def canonical_crop(image: NDArray[np.uint8], preprocessing: Preprocessing) -> CanonicalCrop:
    """Cut the cell out of a crop and give it the canonical size and colours.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, as `wbc_batch.classifier.images.as_rgb` returns it.
    preprocessing : Preprocessing

    Returns
    -------
    CanonicalCrop
    """
    if preprocessing.view == "image":
        return CanonicalCrop(_whole_picture(image, preprocessing), math.nan)
    region = find_cell(image)
    context = preprocessing.context if region.found else 1.0  # else all that there is
    side = max(region.extent * context * preprocessing.margin, 4.0)
    square = _square(image, region, side, preprocessing.size)
    pixels = cv2.LUT(square, _colour_table(region, preprocessing))
    return CanonicalCrop(pixels, region.extent / region.red_cell)


def stacked(crops: Sequence[CanonicalCrop]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Put canonical crops, at least one, behind one another: their pixels, and their nuclei's sizes."""
    sizes = np.array([crop.nucleus_size for crop in crops], np.float32)
    return np.stack([crop.pixels for crop in crops]), sizes


def find_cell(image: NDArray[np.uint8]) -> CellRegion:
    """Find the nucleus of the leukocyte in the middle of a crop.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, one leukocyte, not necessarily centred; red cells and platelets may stand around it.

    Returns
    -------
    CellRegion
        With ``found=False`` and the picture's shorter side as extent where nothing stands out.
    """
    height, width = image.shape[:2]
    step = -(-max(height, width) // _WORK_SIDE)
    small = image
    if step > 1:  # linear, not averaged: five times as fast, and as good for finding
        shape = (max(width // step, 1), max(height // step, 1))
        whole = image[: shape[1] * step, : shape[0] * step]
        small = cv2.resize(whole, shape, interpolation=cv2.INTER_LINEAR)
    background = background_colour(small)
    density = cv2.LUT(small, density_table(background))
    # Green minus blue tells purple nuclei from red cells, which absorb both alike.
    score = np.clip(2.0 * density[..., 1] - density[..., 2], 0.0, _MAX_SCORE)
    score = cv2.GaussianBlur(score, (3, 3), 0)
    nucleus = _join_lobes(_nuclear(score))
    found = nucleus is not None
    colour = np.log(background / np.maximum(_median(small, nucleus), 1.0))
    x, y, extent, red_cell = width / 2, height / 2, float(min(height, width)), math.nan
    if nucleus is not None:
        circle = _circle(nucleus)
        green = cv2.extractChannel(density, 1)
        red_cell = step * red_cell_diameter(green, *circle, float(colour[1]))
        x, y, extent = (step * value for value in circle)
    return CellRegion(x, y, extent, _triple(background), _triple(colour), red_cell, found)


def _whole_picture(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Make the picture square as Pillow does, and so torchvision: bilinear, averaging where it shrinks."""
    inner = round(preprocessing.size / preprocessing.margin)
    square = Image.fromarray(image).resize((inner, inner), Image.Resampling.BILINEAR)
    before = (preprocessing.size - inner) // 2
    after = preprocessing.size - inner - before
    return cv2.copyMakeBorder(
        np.asarray(square), before, after, before, after, cv2.BORDER_REFLECT_101
    )


def _triple(values: NDArray) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def background_colour(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour of the bright background: the median of the pixels brightest in green."""
    filled = np.cumsum(cv2.calcHist([small], [1], None, [256], [0, 256]))
    bright = cv2.inRange(small[..., 1], int(np.searchsorted(filled, 0.9 * filled[-1])), 255)
    return np.maximum(_median(small, bright), 32.0)


def _median(small: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.float32]:
    """Median of each channel, where the mask is not 0, from histograms: no sorting."""
    middle = []
    for channel in range(3):
        filled = np.cumsum(cv2.calcHist([small], [channel], mask, [256], [0, 256]))
        middle.append(np.searchsorted(filled, 0.5 * filled[-1]))
    return np.array(middle, np.float32)


def density_table(background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Table (1, 256, 3) from a channel's value to its optical density, natural logarithm."""
    values = np.maximum(np.arange(256, dtype=np.float32), 1.0)
    return np.log(background / values[:, np.newaxis])[np.newaxis]


def _nuclear(score: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Mask of the pixels above the upper of two Otsu thresholds (Otsu 1979, three classes)."""
    top_edge = _MAX_SCORE * 1.0001  # the last bin would not hold its upper edge
    histogram = cv2.calcHist([score], [0], None, [_BINS], [0, top_edge]).ravel().astype(float)
    weight = np.cumsum(histogram)
    moment = np.cumsum(histogram * np.arange(_BINS))
    low, high = _SPLITS

    def between(w: NDArray, m: NDArray) -> NDArray:
        return np.divide(m * m, w, out=np.zeros_like(m), where=w > 0)

    variance = (
        between(weight[low], moment[low])
        + between(weight[high] - weight[low], moment[high] - moment[low])
        + between(weight[-1] - weight[high], moment[-1] - moment[high])
    )
    threshold = (high[np.argmax(variance)] + 1) * (_MAX_SCORE / _BINS)
    # Where only nucleus and background are there, the upper threshold would split the nucleus.
    top = (np.searchsorted(weight, 0.99 * weight[-1]) + 0.5) * (_MAX_SCORE / _BINS)
    return (score > min(max(threshold, 0.35 * top), 0.6 * top)).view(np.uint8)


def _join_lobes(mask: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Keep the largest, most central piece and the lobes near it."""
    pieces, labels, stats, centres = cv2.connectedComponentsWithStats(mask)
    if pieces < 2:
        return None
    height, width = mask.shape
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    offset = np.hypot(centres[:, 0] / width - 0.5, centres[:, 1] / height - 0.5)
    rank = area * np.exp(-((offset / 0.3) ** 2))
    main = 1 + int(np.argmax(rank[1:]))
    if not 0.002 * mask.size <= area[main] <= 0.95 * mask.size:  # dust, or a black picture
        return None
    keep = np.zeros(pieces, np.uint8)
    keep[main] = 1
    lobes = [
        piece for piece in range(1, pieces) if piece != main and area[piece] >= 0.08 * area[main]
    ]
    if lobes:
        reach = 0.7 * np.sqrt(area[main])
        away = cv2.distanceTransform((labels != main).view(np.uint8), cv2.DIST_L2, 3)
        for piece in lobes:
            keep[piece] = away[labels == piece].min() <= reach
    return keep[labels]


def _circle(nucleus: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Centre (x, y) and diameter of the smallest circle around the mask, pixels of the small copy."""
    hull = cv2.convexHull(cv2.findNonZero(nucleus))
    (x, y), radius = cv2.minEnclosingCircle(hull)
    return x + 0.5, y + 0.5, 2.0 * radius


def _square(
    image: NDArray[np.uint8], region: CellRegion, side: float, size: int
) -> NDArray[np.uint8]:
    """Cut a square around the nucleus; what lies outside the picture becomes background."""
    height, width = image.shape[:2]
    half = side / 2
    left, top = round(region.x - half), round(region.y - half)
    right, bottom = left + max(round(side), 1), top + max(round(side), 1)
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    padded = cv2.copyMakeBorder(
        inside,
        max(-top, 0),
        max(bottom - height, 0),
        max(-left, 0),
        max(right - width, 0),
        cv2.BORDER_CONSTANT,
        value=region.background,
    )
    shrinks = padded.shape[0] > size
    return cv2.resize(
        padded, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def _colour_table(region: CellRegion, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Table (1, 256, 3) from a channel's value to 255 exp(-gain * density)."""
    target = np.asarray(preprocessing.nucleus_density)
    limit = preprocessing.max_gain
    gain = np.clip(target / np.maximum(region.nucleus_density, 1e-3), 1.0 / limit, limit)
    density = density_table(np.asarray(region.background, np.float32))
    table = 255.0 * np.exp(-(gain**preprocessing.balance) * np.maximum(density, 0.0))
    return np.rint(table).astype(np.uint8)
