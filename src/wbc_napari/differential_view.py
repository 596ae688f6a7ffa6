"""The differential while it is being made: reviewed cells, those not yet, exact limits, a target."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QStyledItemDelegate,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from wbc_batch.schema import CLASSES, STATUS_OK
from wbc_napari.palette import colour_of, swatch
from wbc_napari.review import REVIEW_LABELS

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["TARGETS", "DifferentialView"]

#: Cells of a differential count, as laboratories agree on (CLSI H20 counts 200 twice).
TARGETS = (100, 200, 400)

_HEADERS = {
    "Class": "The square has the colour of the frames",
    "Reviewed": "Cells that you gave this label",
    "%": "Share of the reviewed cells of the five classes",
    "95 % limits": "Exact binomial 95 % confidence limits of the share (Clopper and Pearson); "
    "bar: the share, line: its limits",
    "Model": "Cells not reviewed yet that the model gives this label",
}
_LIMITS = Qt.ItemDataRole.UserRole

#: Height of a row, pixels.
_ROW = 22

#: Milliseconds: keys are pressed faster than limits need to be read.
_PAUSE = 60


class DifferentialView(QWidget):
    """Shows the differential of a session; the figures are those of `wbc_batch.report`."""

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_PAUSE)
        self._soon.timeout.connect(self.refresh)
        self._build()

    def _build(self) -> None:
        self._table = QTableWidget(len(REVIEW_LABELS), len(_HEADERS))
        for column, (title, meaning) in enumerate(_HEADERS.items()):
            item = QTableWidgetItem(title)
            item.setToolTip(meaning)
            self._table.setHorizontalHeaderItem(column, item)
        self._table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self._table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._table.setShowGrid(False)
        self._table.setAccessibleName("Differential")
        self._table.setItemDelegateForColumn(3, _Bar(self._table))
        self._table.verticalHeader().hide()
        self._table.verticalHeader().setDefaultSectionSize(_ROW)
        header = self._table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(20)
        for row, label in enumerate(REVIEW_LABELS):
            name = QTableWidgetItem(label)
            name.setData(Qt.ItemDataRole.DecorationRole, swatch(label))
            self._table.setItem(row, 0, name)
            for column in range(1, len(_HEADERS)):
                item = QTableWidgetItem("")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self._table.setItem(row, column, item)
        rows = self._table.verticalHeader().length() + header.sizeHint().height() + 8
        self._table.setFixedHeight(rows)
        self._table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._target = QComboBox()
        self._target.addItems([str(count) for count in TARGETS])
        self._target.setToolTip("How many cells of the five classes are to be counted")
        self._target.currentIndexChanged.connect(self.refresh)
        self._progress = QProgressBar()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        line = QHBoxLayout()
        line.addWidget(QLabel("Target"))
        line.addWidget(self._target)
        line.addWidget(self._progress, 1)
        layout.addLayout(line)

    def set_session(self, session: "Session | None") -> None:
        """Follow another session, or none."""
        if self._session is not None:
            self._session.changed.disconnect(self._on_changed)
        self._session = session
        if session is not None:
            session.changed.connect(self._on_changed)
        self.refresh()

    def _on_changed(self, _: Any) -> None:
        if self.isVisible() and not self._soon.isActive():
            self._soon.start()

    def showEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Bring the figures up to date."""
        super().showEvent(event)
        self.refresh()

    def refresh(self) -> None:
        """Count again."""
        from wbc_batch.report import differential

        session = self._session
        if session is None:
            said = open_ = pd.DataFrame({"label": [], "confidence": []})
        else:
            said, open_ = _apart(session)
        mine, theirs = (_by_label(differential(part)) for part in (said, open_))
        hidden = session is not None and session.blind
        for row, label in enumerate(REVIEW_LABELS):
            self._fill(row, mine.get(label), None if hidden else theirs.get(label))
        self._show_target(int(said["label"].isin(CLASSES).sum()))

    def _fill(self, row: int, mine: dict[Any, Any] | None, model: dict[Any, Any] | None) -> None:
        count = "" if mine is None else str(mine["count"])
        known = mine is not None and not np.isnan(mine["percent"])
        percent = f"{mine['percent']:.1f}" if known and mine else ""
        limits = f"{mine['lower']:.1f} – {mine['upper']:.1f}" if known and mine else ""
        texts = (count, percent, limits, "" if model is None else str(model["count"]))
        for column, text in enumerate(texts, 1):
            self._table.item(row, column).setText(text)
        shares = (mine["percent"], mine["lower"], mine["upper"]) if known and mine else None
        label = REVIEW_LABELS[row]
        self._table.item(row, 3).setData(_LIMITS, shares and (*shares, colour_of(label).name()))

    def _show_target(self, count: int) -> None:
        target = int(self._target.currentText())
        reached = count >= target
        self._progress.setRange(0, target)
        self._progress.setValue(min(count, target))
        self._progress.setFormat(
            f"✓ {count} cells: reached" if reached else f"{count} of {target} cells"
        )


def _apart(session: "Session") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels and confidences of the reviewed cells by the reader, of the others by the model."""
    cells, reviewed = session.cells, session.review.reviewed
    confidence = cells["confidence"].to_numpy(float)
    others = ~reviewed & (cells["status"] == STATUS_OK).to_numpy()
    said = {"label": session.review.labels[reviewed], "confidence": confidence[reviewed]}
    model = {"label": cells["label"].to_numpy(object)[others], "confidence": confidence[others]}
    return pd.DataFrame(said), pd.DataFrame(model)


def _by_label(table: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    return {row["label"]: row for row in table.to_dict("records")}


class _Bar(QStyledItemDelegate):
    """Draws a share as a bar, its limits as a line, both below their figures."""

    def paint(self, painter: QPainter, option: Any, index: Any) -> None:
        """Paint one row."""
        known = index.data(_LIMITS)
        if known:
            percent, lower, upper, name = known
            area = QRectF(option.rect).adjusted(2, 3, -2, -3)
            colour = QColor(name)
            colour.setAlpha(110)
            bar = QRectF(area.left(), area.top(), area.width() * percent / 100, area.height())
            painter.fillRect(bar, colour)
            ends = [area.left() + area.width() * end / 100 for end in (lower, upper)]
            line = QRectF(ends[0], area.bottom() - 2, max(ends[1] - ends[0], 1.0), 2)
            painter.fillRect(line, QColor(name))
        super().paint(painter, option, index)
