"""Small pictures of cells, read in a thread of their own, those asked for last first."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap

from wbc_batch.errors import ImageError
from wbc_napari.crops import Crops, read_one
from wbc_napari.pictures import fitted

__all__ = ["Thumbnails", "to_icon", "to_pixmap"]

#: Pictures that are kept: some screens full.
_KEPT = 4000
#: Requests that are kept: what was scrolled past is not read any more.
_WAITING = 200


class Thumbnails(QObject):
    """Pictures of crops by row; one that is not there yet is read, and `ready` tells when it is.

    Parameters
    ----------
    crops : Crops
    side : int
        Of the square that a crop is fitted into, pixels.
    """

    ready = Signal(int)
    _read = Signal(int, object)

    def __init__(self, crops: Crops, side: int) -> None:
        super().__init__()
        self._crops, self._side = crops, side
        self._kept: OrderedDict[int, QIcon] = OrderedDict()
        self._wanted: list[int] = []
        self._lock = Lock()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._read.connect(self._keep)

    def get(self, row: int) -> QIcon | None:
        """Return the picture of a row, or None and ask for it."""
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        with self._lock:
            if not self._closed and row not in self._wanted:
                self._wanted.append(row)
                del self._wanted[:-_WAITING]
                self._thread.submit(self._read_last)
        return None

    def close(self) -> None:
        """Stop reading; what is under way is finished first."""
        with self._lock:
            self._closed = True
            self._wanted.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _read_last(self) -> None:
        with self._lock:
            if not self._wanted:
                return
            row = self._wanted[-1]
        try:
            image: NDArray | ImageError = read_one(self._crops, row)
        except Exception as error:  # noqa: BLE001 - those that wait must not wait for ever
            image = ImageError(str(error))
        picture = fitted(image, self._side)
        with self._lock:
            if row in self._wanted:
                self._wanted.remove(row)
            if not self._closed:
                self._read.emit(row, picture)

    def _keep(self, row: int, picture: NDArray[np.uint8]) -> None:
        self._kept[row] = to_icon(picture)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        self.ready.emit(row)


def to_icon(picture: NDArray[np.uint8]) -> QIcon:
    """Turn RGBA, shape (H, W, 4), into an icon that is not tinted where it is selected, as Qt would do."""
    pixmap = to_pixmap(picture)
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def to_pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    """Turn RGBA, shape (H, W, 4), into a pixmap."""
    height, width = picture.shape[:2]
    picture = np.ascontiguousarray(picture)
    return QPixmap.fromImage(
        QImage(picture.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
    )
