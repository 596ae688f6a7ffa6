"""Listed crops as one array, which napari slices and shows."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError
from wbc_napari.crops import ListedCrops, read_one

__all__ = ["CropArray"]

#: Crops are shown in squares of this many pixels at most; smaller ones as they are.
_MAX_SIDE = 400
_PAPER = 235


class CropArray:
    """Crops as an array (N, S, S, 3) that reads one when it is looked at.

    Crops of other sizes are shrunk to fit and laid on paper colour; one that cannot be read is blank. That
    is for the eye: what is classified are `crops`.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, crops: ListedCrops) -> None:
        self.crops = crops
        self.side = self._first_side()
        self.shape = (len(crops), self.side, self.side, 3)

    def _first_side(self) -> int:
        for image in self.crops.read(range(min(len(self.crops), 3))):
            if not isinstance(image, ImageError):
                return min(max(image.shape[:2]), _MAX_SIDE)
        return 128

    def __len__(self) -> int:
        return self.shape[0]

    def __deepcopy__(self, _memo: dict[int, Any]) -> "CropArray":
        # napari's Duplicate copies the data of a layer; this reads only, and locks cannot be copied.
        return self

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        numbers = np.arange(len(self))[key[0]]
        shown = np.stack([self._square(int(number)) for number in np.atleast_1d(numbers)])
        shown = shown if np.ndim(numbers) else shown[0]
        rest = key[1:]
        return shown[(slice(None), *rest)] if np.ndim(numbers) else shown[rest]

    def _square(self, number: int) -> NDArray[np.uint8]:
        paper = np.full((self.side, self.side, 3), _PAPER, np.uint8)
        try:
            image = as_rgb(read_one(self.crops, number))
        except ImageError:
            return paper
        zoom = min(self.side / max(image.shape[:2]), 1.0)
        if zoom < 1.0:
            image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        height, width = (min(side, self.side) for side in image.shape[:2])
        top, left = (self.side - height) // 2, (self.side - width) // 2
        paper[top : top + height, left : left + width] = image[:height, :width]
        return paper
