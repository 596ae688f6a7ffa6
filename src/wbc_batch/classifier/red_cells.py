"""The ruler that lies in most pictures: red cells, which are alike in size in all of them.

A square scaled by the nucleus shows everything of a cell but how large it is. A small lymphocyte is told from
a monocyte or a basophil by just that, and red cells, 7 to 8 micrometres wide in most people's blood, give the
scale whatever the camera.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["red_cell_diameter"]

# Distances from the centre of the nucleus, in its diameters: nothing of the leukocyte lies beyond the first;
# within the second nothing is taken for a red cell, and none that is has its centre within the third.
_BEYOND, _OWN, _CENTRE = 0.75, 0.6, 0.8
# The least fraction of the picture that must lie beyond: what is cut out closer shows no red cells.
_LEAST_BEYOND = 0.5
# Red cells are denser than the background by this fraction of the nucleus's density, at least.
_LEAST_CONTRAST = 0.08
# Circles of a smaller radius, in diameters of the nucleus, are platelets or dirt; a larger hole, in squares
# of them, is no pale centre, but background that red cells surround.
_LEAST_RADIUS, _LARGEST_HOLE = 0.15, 0.12
# As many red cells must be seen, and their median deviation from their median may be this fraction of it.
_LEAST_SEEN, _MOST_SPREAD = 3, 0.3
# The picture is mirrored outwards by this fraction of its longer side: red cells at its edge become whole.
_MIRRORED = 0.2
_PEAK = np.ones((5, 5), np.uint8)


def red_cell_diameter(
    density: NDArray[np.float32], x: float, y: float, extent: float, nucleus_density: float
) -> float:
    """Measure the red cells around a leukocyte.

    Each is as wide as the largest circle in it; overlapping ones and those at the edge are, too.

    Parameters
    ----------
    density : ndarray of float32, shape (H, W)
        Optical density in green (natural logarithm), of a picture some 90 pixels wide.
    x, y, extent : float
        Centre and diameter of the nucleus, pixels.
    nucleus_density : float
        Of the median nucleus, in green.

    Returns
    -------
    float
        Median diameter, pixels; NaN where too few are seen, or what is seen differs too much.
    """
    density = cv2.GaussianBlur(density, (3, 3), 0)
    beyond = _disc(density.shape, x, y, _BEYOND * extent) == 0
    outside = density[beyond]
    if len(outside) < _LEAST_BEYOND * density.size:
        return math.nan
    threshold = _otsu(outside)
    dense = outside > threshold
    contrast = outside[dense].mean() - outside[~dense].mean() if 0 < dense.mean() < 1 else 0.0
    if contrast < _LEAST_CONTRAST * nucleus_density:
        return math.nan
    stained = (density > threshold).view(np.uint8)
    stained[_disc(density.shape, x, y, _OWN * extent) > 0] = 0
    widths = _widths(stained, x, y, extent)
    if len(widths) < _LEAST_SEEN:
        return math.nan
    diameter = float(np.median(widths))
    spread = float(np.median(np.abs(widths - diameter)))
    return diameter if spread <= _MOST_SPREAD * diameter else math.nan


def _disc(shape: tuple[int, ...], x: float, y: float, radius: float) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    return cv2.circle(mask, (round(x), round(y)), round(radius), 1, -1)


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold between background and what is stained (Otsu 1979)."""
    levels = np.clip(255.0 * values, 0, 255).astype(np.uint8)
    return cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0] / 255.0


def _widths(stained: NDArray[np.uint8], x: float, y: float, extent: float) -> NDArray[np.float32]:
    """Diameters of the largest circles in the pieces of a mask, but for those about the leukocyte."""
    border = round(_MIRRORED * max(stained.shape))
    wide = cv2.copyMakeBorder(stained, border, border, border, border, cv2.BORDER_REFLECT)
    # An opening of the outline outwards becomes a hole, and holes are filled.
    outlines, family = cv2.findContours(wide, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    largest = _LARGEST_HOLE * extent**2
    pale = [
        outline
        for outline, (_, _, _, parent) in zip(
            outlines, () if family is None else family[0], strict=True
        )
        if parent >= 0 and cv2.contourArea(outline) <= largest
    ]
    cv2.drawContours(wide, pale, -1, 1, -1)
    depth = cv2.distanceTransform(wide, cv2.DIST_L2, 5)
    deepest = (depth == cv2.dilate(depth, _PEAK)) & (depth > _LEAST_RADIUS * extent)
    rows, columns = np.nonzero(deepest[border:-border, border:-border])
    apart = np.hypot(columns - x, rows - y) > _CENTRE * extent
    widths: NDArray[np.float32] = 2 * depth[rows[apart] + border, columns[apart] + border]
    return widths
