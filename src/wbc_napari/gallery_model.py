"""The cells of one class as a list that Qt shows: no picture is read before it is in view."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractListModel, QMimeData, QModelIndex, QSize, Qt
from qtpy.QtGui import QPixmap

from wbc_batch.schema import STATUS_ERROR
from wbc_napari.notices import plain
from wbc_napari.review import NOT_CLASSIFIED, shuffled
from wbc_napari.thumbnails import Thumbnails

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["CELL_ROWS", "THUMBNAIL", "GalleryModel"]

#: Side of a thumbnail, pixels.
THUMBNAIL = 76

#: Type of the data of a drag: rows of cells, in decimal, joined by blanks.
CELL_ROWS = "application/x-wbc-cell-rows"


class GalleryModel(QAbstractListModel):
    """The cells of a session that bear one label, the least confident first (shuffled in blind mode).

    A cell that gets another label leaves the list; the rest stays in its place.
    """

    def __init__(self, session: "Session") -> None:
        super().__init__()
        self._session = session
        self._thumbnails = Thumbnails(session.crops, THUMBNAIL)
        self._thumbnails.ready.connect(self._picture_is_there)
        self._blank = QPixmap(THUMBNAIL, THUMBNAIL)
        self._blank.fill(Qt.GlobalColor.transparent)
        self._places: dict[int, int] = {}
        self.label = ""
        self.rows: NDArray[np.intp] = np.zeros(0, np.intp)

    def show_label(self, label: str) -> None:
        """List the cells that bear a label now."""
        self.beginResetModel()
        self.label = label
        found = np.flatnonzero(self._session.labels() == label)
        if self._session.seed is not None:
            rank = shuffled(self._session.cells["cell_id"], self._session.seed)
            found = found[np.argsort(rank[found], kind="stable")]
        else:
            confidence = self._session.cells["confidence"].to_numpy(float)
            found = found[np.argsort(confidence[found], kind="stable")]
        self._set(found)
        self.endResetModel()

    def follow(self, rows: NDArray[np.intp]) -> None:
        """Take in that cells got other labels."""
        labels = self._session.labels()
        if any(labels[row] == self.label and row not in self._places for row in rows):
            self.show_label(self.label)
            return
        gone = sorted(
            (
                self._places[row]
                for row in map(int, rows)
                if row in self._places and labels[row] != self.label
            ),
            reverse=True,
        )
        if len(gone) > 50:  # one by one would take longer
            self.show_label(self.label)
            return
        for place in gone:
            self.beginRemoveRows(QModelIndex(), place, place)
            self._set(np.delete(self.rows, place))
            self.endRemoveRows()
        for row in map(int, rows):
            if row in self._places:
                self._tell(row)

    def place_of(self, row: int) -> QModelIndex:
        """Return where a cell stands; an invalid index where it does not."""
        place = self._places.get(row)
        return QModelIndex() if place is None else self.index(place)

    def close(self) -> None:
        """Stop reading pictures."""
        self._thumbnails.close()

    def _set(self, rows: NDArray[np.intp]) -> None:
        self.rows = rows
        self._places = {int(row): place for place, row in enumerate(rows)}

    def _picture_is_there(self, row: int) -> None:
        if row in self._places:
            self._tell(row)

    def _tell(self, row: int) -> None:
        index = self.place_of(row)
        self.dataChanged.emit(index, index)

    # --- what Qt asks ---

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008, N802  Qt's name and way
        """Return the number of cells."""
        return 0 if parent.isValid() else len(self.rows)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return picture, caption, explanation or size of a cell."""
        if not 0 <= index.row() < len(self.rows):
            return None
        row = int(self.rows[index.row()])
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnails.get(row) or self._blank
        if role == Qt.ItemDataRole.DisplayRole:
            return self._caption(row)
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain(self._explanation(row))
        if role == Qt.ItemDataRole.SizeHintRole:
            return QSize(THUMBNAIL + 8, THUMBNAIL + 22)
        return None

    def _caption(self, row: int) -> str:
        if self.label == NOT_CLASSIFIED:
            return "✗"
        tick = "✓ " if self._session.review.labels[row] else ""
        confidence = float(self._session.cells["confidence"].to_numpy(float)[row])
        return tick if self._session.blind or np.isnan(confidence) else f"{tick}{confidence:.2f}"

    def _explanation(self, row: int) -> str:
        cell = self._session.cells.iloc[row]
        if self._session.blind:  # folders are often named after classes
            return str(cell["cell_id"])
        place = " ".join(str(part) for part in (cell["source"], cell["member"]) if part)
        if cell["status"] == STATUS_ERROR:
            return f"{place}\nnot classified: {cell['error']}"
        sure = "" if np.isnan(cell["confidence"]) else f" {cell['confidence']:.3f}"
        return f"{place}\nmodel: {cell['label']} ({cell['predicted']}{sure}), novelty {cell['novelty']:.2f}"

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Cells can be selected and dragged."""
        own = Qt.ItemFlag.ItemIsDragEnabled | Qt.ItemFlag.ItemNeverHasChildren
        return super().flags(index) | own

    def mimeTypes(self) -> list[str]:  # noqa: N802  Qt's name
        """Return the type of what is dragged."""
        return [CELL_ROWS]

    def mimeData(self, indexes: Any) -> QMimeData:  # noqa: N802  Qt's name
        """Return the rows of cells that are dragged."""
        data = QMimeData()
        rows = " ".join(str(int(self.rows[index.row()])) for index in indexes)
        data.setData(CELL_ROWS, rows.encode())
        return data
