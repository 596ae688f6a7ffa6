"""The gallery: a bin per class, and the cells of the chosen one, to be told apart by key or by drag."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QItemSelectionModel, QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QGridLayout,
    QLabel,
    QListView,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from wbc_napari.cell_card import CellCard
from wbc_napari.focus import keep_keys
from wbc_napari.gallery_model import CELL_ROWS, THUMBNAIL, GalleryModel
from wbc_napari.keys import LABEL_KEYS
from wbc_napari.notices import telling
from wbc_napari.palette import swatch
from wbc_napari.review import NOT_CLASSIFIED

if TYPE_CHECKING:
    from wbc_napari.session import Session
from wbc_batch.schema import LABELS

__all__ = ["GalleryView"]


class GalleryView(QWidget):
    """Shows the cells of a session class by class.

    Click goes to the cell on the canvas; 1 to 5, U or a drag onto a bin give the selected cells a label.
    """

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None
        self._model: GalleryModel | None = None
        self._stale = False
        self._bins = {label: _Bin(label, key) for key, label in LABEL_KEYS.items()}
        self._bins[NOT_CLASSIFIED] = _Bin(NOT_CLASSIFIED)
        group = QButtonGroup(self)
        grid = QGridLayout()
        grid.setSpacing(3)
        for place, button in enumerate(self._bins.values()):
            group.addButton(button)
            grid.addWidget(button, place // 3, place % 3, 1, 1 if button.acceptDrops() else -1)
            button.clicked.connect(lambda _=False, label=button.label: self._choose(label))
            button.dropped.connect(self._relabel)
        self._list = _CellList()
        self._list.keyed.connect(self._on_key)
        self._list.clicked.connect(self._go)
        self._list.stepped.connect(self._go)
        self._card = CellCard()
        keys = QLabel("1–5, U: relabel   Space: confirm   Ctrl+Z: undo")
        keys.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        keys.setToolTip(
            "All keys act on the selected cells, and so does dragging them onto a class"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        layout.addWidget(self._list, 1)
        layout.addWidget(self._card, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(keys)

    def set_session(self, session: "Session | None") -> None:
        """Show another session, or none; let go of the one before."""
        if self._session is not None:
            self._session.changed.disconnect(self._on_changed)
            self._session.moved.disconnect(self._on_moved)
        if self._model is not None:
            self._list.setModel(None)
            self._model.close()
            self._model = None
        self._session = session
        self._card.set_session(session)
        self.setEnabled(session is not None)
        if session is not None:
            self._model = GalleryModel(session)
            self._list.setModel(self._model)
            session.changed.connect(self._on_changed)
            session.moved.connect(self._on_moved)
            self.show_label(self._first_label())
        self._count()

    def show_label(self, label: str) -> None:
        """Show the cells that bear a label."""
        self._bins[label].setChecked(True)
        if self._model is not None:
            self._model.show_label(label)
            self._list.scrollToTop()

    def _choose(self, label: str) -> None:
        """Show the cells of a class; the keys are for them."""
        self.show_label(label)
        self._list.setFocus()

    def _first_label(self) -> str:
        labels = np.zeros(0, object) if self._session is None else self._session.labels()
        return next((label for label in LABELS if (labels == label).any()), LABELS[0])

    def _count(self) -> None:
        labels = [] if self._session is None else self._session.labels().tolist()
        counts = Counter(labels)
        for label, button in self._bins.items():
            button.show_count(counts[label])
        failed = self._bins[NOT_CLASSIFIED]
        failed.setVisible(failed.count > 0 or failed.isChecked())

    # --- from here to the session ---

    def _selected(self) -> list[int]:
        if self._model is None:
            return []
        return [int(self._model.rows[index.row()]) for index in self._list.selectedIndexes()]

    def _relabel(self, rows: list[int], label: str) -> None:
        if self._session is not None and rows:
            telling(partial(self._session.relabel, rows, label))

    def act(self, key: str) -> bool:
        """Do what a label key, or the one that confirms, means for the selected cells.

        Parameters
        ----------
        key : str
            See `wbc_napari.keys.key_actions`.

        Returns
        -------
        bool
            False where no cell is selected, or the key is another one.
        """
        meant = {**LABEL_KEYS, "Space": "confirm"}.get(key)
        if meant is None or not self._selected():
            return False
        self._on_key(meant)
        return True

    def _on_key(self, key: str) -> None:
        if self._session is None:
            return
        history = {"undo": self._session.undo, "redo": self._session.redo}
        rows = self._selected()
        if key in history:
            telling(history[key])
        elif rows:
            following = self._following()
            if key == "confirm":
                telling(partial(self._session.confirm, rows))
            else:
                self._relabel(rows, key)
            self._go_on(following)

    def _following(self) -> int | None:
        """Return the cell behind the last selected one; None behind the last one of all."""
        assert self._model is not None
        place = 1 + max(index.row() for index in self._list.selectedIndexes())
        return int(self._model.rows[place]) if place < len(self._model.rows) else None

    def _go_on(self, row: int | None) -> None:
        """Select a cell, or the last one, and show it: else canvas and card would show one that is done."""
        if self._model is None or not self._model.rowCount():
            return
        last = self._model.index(self._model.rowCount() - 1)
        index = last if row is None else self._model.place_of(row)
        self._list.setCurrentIndex(index)
        self._go(index)

    def _go(self, index: Any) -> None:
        if self._session is not None and self._model is not None and index.isValid():
            self._session.go(int(self._model.rows[index.row()]))

    # --- from the session to here ---

    def _on_changed(self, rows: Any) -> None:
        if not self.isVisible():  # keys on another page shall not wait for this one
            self._stale = True
            return
        if self._model is not None and self._session is not None:
            if len(rows) == len(self._session.cells):
                self._model.show_label(self._model.label)
            else:
                self._model.follow(np.asarray(rows))
        self._count()

    def showEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Take in what was changed on other pages."""
        super().showEvent(event)
        if self._stale and self._model is not None and self._session is not None:
            self._stale = False
            self._model.show_label(self._model.label)
            self._count()
            self._on_moved(self._session.row)

    def _on_moved(self, row: int) -> None:
        if self._model is None:
            return
        index = self._model.place_of(row)
        if not index.isValid():  # a key shall not label other cells than the one that is looked at
            self._list.selectionModel().clear()
        # Where the gallery itself went there, several cells may be selected.
        elif index != self._list.currentIndex():
            self._list.selectionModel().setCurrentIndex(
                index, QItemSelectionModel.SelectionFlag.ClearAndSelect
            )
            self._list.scrollTo(index)


# Keys act on the selected cells from wherever they are pressed, so these are to be seen without focus, too.
_SELECTED = "QListView::item:selected { background: rgb(0, 122, 204); color: white; }"


class _CellList(QListView):
    """A grid of thumbnails that tells which label key was pressed, and where arrow keys have gone."""

    keyed = Signal(str)
    stepped = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setDragEnabled(True)
        self.setUniformItemSizes(True)
        self.setLayoutMode(QListView.LayoutMode.Batched)
        self.setBatchSize(200)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.setSpacing(1)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setStyleSheet(_SELECTED)
        self.setAccessibleName("Gallery")
        self.setToolTip(
            "Click: go to the cell. 1 to 5, U, or a drag onto a class: relabel the selected cells"
        )

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Take the keys of a review; leave the rest to Qt, arrows and Ctrl+A among it."""
        control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        text = event.text().upper()
        if control and event.key() == Qt.Key.Key_Z:
            self.keyed.emit("redo" if shift else "undo")
        elif not control and text in LABEL_KEYS:
            self.keyed.emit(LABEL_KEYS[text])
        elif event.key() == Qt.Key.Key_Space:
            self.keyed.emit("confirm")
        else:
            before = self.currentIndex()
            super().keyPressEvent(event)
            if self.currentIndex() != before:
                self.stepped.emit(self.currentIndex())


class _Bin(QPushButton):
    """A class: its colour, its number of cells; click shows them, a drop gives cells its label.

    Without a key it is no label that one could give.
    """

    dropped = Signal(list, str)

    def __init__(self, label: str, key: str = "") -> None:
        super().__init__()
        self.label, self.count = label, 0
        self.setCheckable(True)
        self.setAcceptDrops(bool(key))
        self.setIcon(QIcon(swatch(label, 12)))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        keep_keys(self)
        self.setToolTip(
            f"Show the cells labeled {label}; drop cells here, or press {key}, to give them this label"
            if key
            else "Show the cells that could not be read or classified; hover over one for the reason"
        )
        self.show_count(0)

    def show_count(self, count: int) -> None:
        """Write the number of cells beside the name."""
        self.count = count
        self.setText(f"{self.label} {count}")
        self.setAccessibleName(f"{self.label}, {count} cells")

    def dragEnterEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Accept cells."""
        if event.mimeData().hasFormat(CELL_ROWS):
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Tell which cells were dropped."""
        text = bytes(event.mimeData().data(CELL_ROWS)).decode()
        event.acceptProposedAction()
        self.dropped.emit([int(row) for row in text.split()], self.label)
