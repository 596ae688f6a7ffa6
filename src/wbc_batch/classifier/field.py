"""Find the leukocytes of a field of view: boxes to crop, before anything is classified.

The finder of single crops (`wbc_batch.classifier.preprocessing`) carried to whole fields, by the same means:

1. the bright background turns colours into optical densities, and green against blue tells nuclei from red
   cells;
2. the red cells give the scale: their diameter is that of the discs that fit into what is stained;
3. pieces of nucleus that lie close together are one nucleus; what is small against a red cell is a platelet;
4. the cell is the nucleus with the cytoplasm around it that is bluer than red cells. Pale or pink cytoplasm
   cannot be told from its surroundings: a lobed nucleus gets a box of a granulocyte's size at least.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.preprocessing import background_colour, density_table

__all__ = ["find_cells"]

# Red cells of 20 pixels are enough; a field of view at high magnification shows ten or more side by side.
_WORK_SIDE = 1280
_BLUR = 1.5

# Green against blue: nuclei absorb more than this many times what red cells do, and at least this part of
# what the darkest pixels do.
_OVER_RED_CELLS = 2.0
_OF_DARKEST = 0.5

# Lengths in diameters of a red cell, areas in areas of one.
_SPECK = 0.02
_GAP_BETWEEN_LOBES = 0.18
_SMALLEST_NUCLEUS = 0.25
_WIDEST_CYTOPLASM = 0.45
_THINNEST_CYTOPLASM = 0.12
_BORDER = 0.04
_GRANULOCYTE = 1.6

#: A nucleus that fills less than this of the circle around it is lobed.
_COMPACT = 0.6


@dataclass(frozen=True)
class _Smear:
    """A field in terms of stain. All arrays have its height and width.

    Attributes
    ----------
    stained, nuclear, blue : ndarray of uint8
        1 where anything is stained; where a nucleus is; where it is bluer than red cells are.
    red_cell : float
        Diameter of a red cell, pixels; of the largest disc of anything, where there is none.
    """

    stained: NDArray[np.uint8]
    nuclear: NDArray[np.uint8]
    blue: NDArray[np.uint8]
    red_cell: float


def find_cells(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find the leukocytes of a stained smear, whatever their class.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB, as `wbc_batch.classifier.images.as_rgb` returns it; a field of view in which single red cells
        are at least some 20 pixels wide.

    Returns
    -------
    ndarray of int64, shape (n, 4)
        x, y, width, height of a box around each cell, pixels from the top left corner, in reading order;
        cells at the rim are cut by it.
    """
    height, width = image.shape[:2]
    zoom = min(1.0, _WORK_SIDE / max(height, width))
    small = image
    if zoom < 1.0:
        small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    smear = _smear(small)
    found = [] if smear is None else _boxes(smear)
    boxes = np.array(found, np.float64).reshape(-1, 4) / zoom
    corners = np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    corners = np.clip(np.rint(corners), 0, [width, height, width, height]).astype(np.int64)
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]


def _smear(image: NDArray[np.uint8]) -> _Smear | None:
    """Tell what is stained, and how; None where nothing is."""
    table = density_table(background_colour(image))
    density = cv2.GaussianBlur(cv2.LUT(image, table), (0, 0), _BLUR)
    red, green, blue = (density[..., channel] for channel in range(3))
    score = 2.0 * green - blue
    # Nuclei would pull the threshold up, beyond pale red cells.
    stained = green > _otsu(green[green < 0.6])
    if not stained.any():
        return None
    of_red_cells = float(np.median(score[stained]))
    darkest = float(np.percentile(score, 99.5))
    nuclear = score > max(_OVER_RED_CELLS * of_red_cells, _OF_DARKEST * darkest)
    like_red_cells = stained & (np.abs(score - of_red_cells) < 0.3 * abs(of_red_cells))
    if not like_red_cells.any():
        return None
    hue = red - blue
    bluer = stained & (hue > float(np.median(hue[like_red_cells])) + 0.1)
    diameter = _disc_diameter(stained.view(np.uint8))
    if diameter is None:
        return None
    return _Smear(
        stained.view(np.uint8), nuclear.view(np.uint8), (bluer | nuclear).view(np.uint8), diameter
    )


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold between two classes of values (Otsu 1979), at most 0.4."""
    if not len(values):
        return 0.4
    low, high = float(values.min()), float(np.percentile(values, 99.9))
    grey = np.clip((values - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(grey.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return min(low + level / 255.0 * (high - low), 0.4)


def _disc_diameter(stained: NDArray[np.uint8]) -> float | None:
    """Diameter of the discs that typically fit into what is stained, pixels; None where none does.

    Peaks of the distance transform, weighted by their area. Not the median but a lower quantile of them:
    where cells overlap, discs are too wide, and nothing makes them too narrow but specks, which weigh little.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - stained)
    pallor = stats[:, cv2.CC_STAT_AREA] < 0.01 * stained.size  # the pale middles of red cells
    pallor[0] = False
    filled = stained | pallor[labels].view(np.uint8)
    # Where all is stained, everything is endlessly far from what is not.
    away = np.minimum(cv2.distanceTransform(filled, cv2.DIST_L2, 5), min(stained.shape) / 2)
    reach = max(3, max(stained.shape) // 20 | 1)
    peaks = np.sort(away[(away >= cv2.dilate(away, np.ones((reach, reach)))) & (away > 4)])
    if not len(peaks):
        return None
    weight = np.cumsum(peaks**2)
    return 2.0 * float(peaks[np.searchsorted(weight, 0.3 * weight[-1])])


def _boxes(smear: _Smear) -> list[tuple[float, float, float, float]]:
    """Box (x, y, width, height) of each cell."""
    area = np.pi / 4 * smear.red_cell**2
    _, labels, stats, _ = cv2.connectedComponentsWithStats(smear.nuclear)
    kept = stats[:, cv2.CC_STAT_AREA] > _SPECK * area
    kept[0] = False
    nuclear = kept[labels].view(np.uint8)
    count, nuclei, stats, _ = cv2.connectedComponentsWithStats(_closed(nuclear, smear.red_cell))
    boxes = []
    for number in range(1, count):
        around = _surroundings(stats[number], _GRANULOCYTE * smear.red_cell, nuclear.shape)
        nucleus = (nuclei[around] == number).view(np.uint8) & nuclear[around]
        if nucleus.sum() >= _SMALLEST_NUCLEUS * area:
            x, y, width, height = _cell(nucleus, smear.blue[around], smear.red_cell)
            boxes.append((x + around[1].start, y + around[0].start, width, height))
    return boxes


def _closed(nuclear: NDArray[np.uint8], red_cell: float) -> NDArray[np.uint8]:
    """Bridge the gaps between the lobes of one nucleus."""
    side = max(int(_GAP_BETWEEN_LOBES * red_cell) | 1, 3)
    rim = cv2.copyMakeBorder(nuclear, side, side, side, side, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(rim, cv2.MORPH_CLOSE, _disc(side))
    return closed[side:-side, side:-side]


def _disc(side: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _surroundings(
    stats: NDArray[np.int32], margin: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Rows and columns of a component's box, widened by a margin."""
    x, y, width, height = (int(value) for value in stats[:4])
    wide = int(np.ceil(margin))
    return (
        slice(max(y - wide, 0), min(y + height + wide, shape[0])),
        slice(max(x - wide, 0), min(x + width + wide, shape[1])),
    )


def _cell(
    nucleus: NDArray[np.uint8], blue: NDArray[np.uint8], red_cell: float
) -> tuple[float, float, float, float]:
    """Box of the cell around one nucleus, in the same window."""
    near = cv2.distanceTransform(1 - nucleus, cv2.DIST_L2, 5) < _WIDEST_CYTOPLASM * red_cell
    thin = _disc(int(_THINNEST_CYTOPLASM * red_cell) | 1)
    body = cv2.morphologyEx(blue & near.view(np.uint8), cv2.MORPH_OPEN, thin) | nucleus
    _, labels, stats, _ = cv2.connectedComponentsWithStats(body)
    touching = np.unique(labels[nucleus > 0])
    main = touching[np.argmax(stats[touching, cv2.CC_STAT_AREA])]
    left, top, width, height = (float(value) for value in stats[main, :4])
    right, bottom = left + width, top + height
    points = cv2.findNonZero(nucleus)
    _, radius = cv2.minEnclosingCircle(cv2.convexHull(points))
    if len(points) < _COMPACT * np.pi * radius**2:
        x, y = points.reshape(-1, 2).mean(axis=0)
        half = _GRANULOCYTE * red_cell / 2
        left, top, right, bottom = (
            min(left, x - half),
            min(top, y - half),
            max(right, x + half),
            max(bottom, y + half),
        )
    border = _BORDER * red_cell
    return left - border, top - border, right - left + 2 * border, bottom - top + 2 * border
