"""The table of a differential: counts, shares as bars with their limits, reference ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QPainter, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QTableWidget,
    QTableWidgetItem,
)

from wbc_napari.palette import colour_of, swatch

if TYPE_CHECKING:
    from wbc_batch.report import Profile, Range
from wbc_batch.schema import LABELS

__all__ = ["SIDES", "DifferentialTable"]

_HEADERS = {
    "Class": "The square has the color of the frames of this class",
    "Yours": "Cells that you gave this label",
    "%": "Share of the reviewed cells of the five classes; ▲ ▼: outside the chosen range",
    "95 % limits": "Exact binomial 95 % confidence limits of the share (Clopper and Pearson). "
    "Bar: the share; line below: its limits; line above: the chosen range",
    "Range": "Reference range of the share, in %, from the chosen profile",
    "Model": "Cells not yet reviewed to which the model gives this label",
}
_LIMITS, _RANGE, _MODEL = 3, 4, 5

#: Role of what `_Bar` draws.
_SHARE = Qt.ItemDataRole.UserRole

#: Marks of a share outside its range, by the side on which it lies.
SIDES = {"above": "▲ ", "below": "▼ ", "": ""}

#: Height of a row, pixels.
_ROW = 22

#: A row of `wbc_batch.report.differential`.
Counted = Mapping[Any, Any]


class DifferentialTable(QTableWidget):
    """Shows figures that `wbc_batch.report` has computed, a row per label."""

    def __init__(self) -> None:
        super().__init__(len(LABELS), len(_HEADERS))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setShowGrid(False)
        self.setAccessibleName("Differential")
        self.setItemDelegateForColumn(_LIMITS, _Bar(self))
        self._fill_in()
        header, rows = self.horizontalHeader(), self.verticalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_LIMITS, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(20)
        rows.hide()
        rows.setDefaultSectionSize(_ROW)
        self.setFixedHeight(rows.length() + header.sizeHint().height() + 8)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def _fill_in(self) -> None:
        for column, (title, meaning) in enumerate(_HEADERS.items()):
            item = QTableWidgetItem(title)
            item.setToolTip(meaning)
            self.setHorizontalHeaderItem(column, item)
        for row, label in enumerate(LABELS):
            name = QTableWidgetItem(label)
            name.setData(Qt.ItemDataRole.DecorationRole, swatch(label))
            self.setItem(row, 0, name)
            for column in range(1, len(_HEADERS)):
                item = QTableWidgetItem("")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)

    def show_counts(
        self,
        mine: Mapping[str, Counted],
        model: Mapping[str, Counted],
        profile: "Profile | None",
        sides: Mapping[str, str],
    ) -> None:
        """Show a differential.

        Parameters
        ----------
        mine, model : mapping of str to Counted
            By label: of the reviewed cells by the reader, of the others by the model.
        profile : Profile or None
            The chosen reference ranges.
        sides : mapping of str to str
            By class: on which side of its range it lies, ``above`` or ``below``.
        """
        for row, label in enumerate(LABELS):
            limits = None if profile is None else profile.percent.get(label)
            share = _share(mine.get(label), limits, label)
            mark = SIDES[sides.get(label, "")]
            texts = (
                str(mine[label]["count"]) if label in mine else "",
                "" if share is None else f"{mark}{share.percent:.1f}",
                "" if share is None else f"{share.lower:.1f} – {share.upper:.1f}",
                "" if limits is None else str(limits),
                str(model[label]["count"]) if label in model else "",
            )
            for column, text in enumerate(texts, 1):
                self.item(row, column).setText(text)
            self.item(row, _LIMITS).setData(_SHARE, share)
        self.setColumnHidden(_RANGE, profile is None)


@dataclass(frozen=True)
class _Share:
    """What a bar shows: a share with its limits, 0..100, the range of its class, the class."""

    percent: float
    lower: float
    upper: float
    range: "Range | None"
    label: str


class _Bar(QStyledItemDelegate):
    """Draws a share as a bar, its limits as a line below, the chosen range as a line above."""

    def paint(self, painter: QPainter, option: Any, index: Any) -> None:
        """Paint one row."""
        share = index.data(_SHARE)
        if share is not None:
            area = QRectF(option.rect).adjusted(2, 3, -2, -3)

            def span(lower: float, upper: float, top: float, height: float) -> QRectF:
                left, right = (area.left() + area.width() * end / 100 for end in (lower, upper))
                return QRectF(left, top, max(right - left, 1.0), height)

            colour = colour_of(share.label)
            painter.fillRect(span(share.lower, share.upper, area.bottom() - 2, 2), colour)
            colour.setAlpha(110)
            painter.fillRect(span(0.0, share.percent, area.top(), area.height()), colour)
            if share.range is not None:
                low = 0.0 if share.range.lower is None else share.range.lower
                high = 100.0 if share.range.upper is None else share.range.upper
                text = option.palette.color(QPalette.ColorRole.Text)
                painter.fillRect(span(low, high, area.top() - 2, 2), text)
        super().paint(painter, option, index)


def _share(counted: Counted | None, limits: "Range | None", label: str) -> _Share | None:
    if counted is None or np.isnan(counted["percent"]):
        return None
    return _Share(counted["percent"], counted["lower"], counted["upper"], limits, label)
