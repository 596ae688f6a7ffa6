"""Pictures of cells, for lists and files. Knows no Qt."""

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError
from wbc_batch.schema import CLASS_COLORS
from wbc_napari.crops import Crops
from wbc_napari.tables import current_labels

__all__ = ["fitted", "gallery_picture"]

#: Of the picture of a gallery: side of a cell, cells side by side, room between them, grey of the paper,
#: and cells of each class.
_THUMB, _COLUMNS, _GAP, _PAPER, _MOST = 72, 12, 4, 235, 36


def fitted(image: NDArray | ImageError, side: int) -> NDArray[np.uint8]:
    """Fit a crop into a square of RGBA; the rest, and all where there is no picture, is transparent."""
    square = np.zeros((side, side, 4), np.uint8)
    try:
        if isinstance(image, ImageError):
            raise image
        picture = as_rgb(image)
    except ImageError:
        return square
    zoom = side / max(picture.shape[:2])
    width, height = (max(1, round(length * zoom)) for length in picture.shape[1::-1])
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    top, left = (side - height) // 2, (side - width) // 2
    place = square[top : top + height, left : left + width]
    place[..., :3] = cv2.resize(picture, (width, height), interpolation=way)
    place[..., 3] = 255
    return square


def gallery_picture(
    cells: pd.DataFrame, crops: Crops, rows: NDArray[np.intp], lost: dict[int, ImageError]
) -> NDArray[np.uint8]:
    """Draw the gallery: per class its cells, the least confident first, some of each.

    Parameters
    ----------
    cells : DataFrame
        See `wbc_napari.tables.cell_table`.
    crops : Crops
    rows : ndarray of int
        The number of each cell among the crops.
    lost : dict
        Gets the cells that could not be read, by their place in `cells`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.
    """
    labels = current_labels(cells)
    confidence = cells["confidence"].to_numpy(float)
    cell = _THUMB + _GAP
    strips = []
    for label, colour in CLASS_COLORS.items():
        found = np.flatnonzero(labels == label)
        if not len(found):
            continue
        found = found[np.argsort(confidence[found], kind="stable")]
        shown = found[:_MOST]
        lines = -(-len(shown) // _COLUMNS)
        strip = np.full((28 + lines * cell, _COLUMNS * cell + _GAP, 3), 255, np.uint8)
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        cv2.rectangle(strip, (_GAP, 8), (_GAP + 12, 20), rgb, -1)
        more = f", the {_MOST} least confident" if len(found) > _MOST else ""
        text = f"{label}: {len(found)} cells{more}"
        cv2.putText(
            strip, text, (24, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA
        )
        for number, image in enumerate(crops.read([int(rows[row]) for row in shown])):
            if isinstance(image, ImageError):
                lost[int(shown[number])] = image
            else:
                top = 28 + number // _COLUMNS * cell
                left = _GAP + number % _COLUMNS * cell
                strip[top : top + _THUMB, left : left + _THUMB] = _on_paper(image)
        strips.append(strip)
    if not strips:
        return np.full((40, _COLUMNS * cell + _GAP, 3), 255, np.uint8)
    return np.vstack(strips)


def _on_paper(image: NDArray) -> NDArray[np.uint8]:
    square = fitted(image, _THUMB)
    shown = square[..., 3:] > 0
    return np.where(shown, square[..., :3], np.uint8(_PAPER))
