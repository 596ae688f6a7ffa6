"""One cell: its crop as it is, beside it the canonical crop that the network saw."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel

from wbc_batch.classifier.images import as_rgb
from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop
from wbc_batch.errors import ImageError
from wbc_napari.crops import read_one
from wbc_napari.follower import Follower
from wbc_napari.notices import plain
from wbc_napari.pictures import fitted
from wbc_napari.thumbnails import to_pixmap

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["CellCard"]

_SIDE = 140


class CellCard(Follower):
    """Shows the present cell of a session."""

    follows = "moved"

    def __init__(self) -> None:
        super().__init__()
        self._pictures = [QLabel(), QLabel()]
        words = ("as it is", "as the model sees it")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for column, (picture, text) in enumerate(zip(self._pictures, words, strict=True)):
            picture.setFixedSize(_SIDE, _SIDE)
            picture.setAccessibleName(f"The cell {text}")
            caption = QLabel(text)
            caption.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            layout.addWidget(picture, 0, column, Qt.AlignmentFlag.AlignHCenter)
            layout.addWidget(caption, 1, column)

    def refresh(self) -> None:
        """Show the present cell."""
        pictures: list[NDArray | ImageError] = [ImageError("there is no cell")] * 2
        if self._session is not None and self._session.row >= 0:
            pictures = _both(self._session, self._session.row)
        for label, picture in zip(self._pictures, pictures, strict=True):
            label.setPixmap(to_pixmap(fitted(picture, _SIDE)))
            label.setToolTip(self._trouble(picture))

    def _trouble(self, picture: NDArray | ImageError) -> str:
        """Say why there is no picture; to a blind reader without the names of files."""
        if not isinstance(picture, ImageError):
            return ""
        blind = self._session is not None and self._session.blind
        return "there is no picture of this cell" if blind else plain(str(picture))


def _both(session: "Session", row: int) -> list[NDArray[np.uint8] | ImageError]:
    try:
        image = as_rgb(read_one(session.crops, row))
    except ImageError as error:
        return [error, error]
    settings = session.model.get("preprocessing")
    if not settings:
        return [image, ImageError("how the model prepares a crop was not recorded")]
    return [image, canonical_crop(image, Preprocessing(**settings)).pixels]
