"""The differential as a small table for the dock."""

import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from wbc_batch.schema import CLASS_COLORS, ERROR_COLOR

__all__ = ["DifferentialTable"]

_HEADERS = {
    "Class": "Label given by the model; the square has the colour of its frames",
    "Cells": "Number of cells with this label",
    "%": "Share of the identified cells",
    "95 % limits": "Exact binomial 95 % confidence limits of the share (Clopper and Pearson)",
    "Conf.": "Mean confidence of these cells",
}


class DifferentialTable(QTableWidget):
    """Shows what `wbc_batch.report.differential` returns for one group; computes nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADERS), parent)
        for column, (title, meaning) in enumerate(_HEADERS.items()):
            item = QTableWidgetItem(title)
            item.setToolTip(meaning)
            self.setHorizontalHeaderItem(column, item)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setShowGrid(False)
        self.setAccessibleName("Differential")
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)

    def show_differential(self, differential: pd.DataFrame | None) -> None:
        """Fill the table; None empties it."""
        rows = [] if differential is None else differential.to_dict("records")
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            name = QTableWidgetItem(row["label"])
            name.setData(Qt.ItemDataRole.DecorationRole, _swatch(row["label"]))
            self.setItem(number, 0, name)
            texts = (
                str(row["count"]),
                _text("{:.1f}", row["percent"]),
                _text("{:.0f} – {:.0f}", row["lower"], row["upper"]),
                _text("{:.2f}", row["mean_confidence"]),
            )
            for column, text in enumerate(texts, 1):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(number, column, item)
        self.resizeRowsToContents()
        self.setMinimumWidth(self._full_width())
        self.setMaximumHeight(self._full_height())

    def _full_height(self) -> int:
        """Height of header and rows, pixels."""
        rows = self.verticalHeader().length()
        return self.horizontalHeader().sizeHint().height() + rows + 2 * self.frameWidth()

    def _full_width(self) -> int:
        """Width in which nothing is cut off, pixels."""
        header = self.horizontalHeader()
        columns = range(self.columnCount())
        widths = (max(self.sizeHintForColumn(c), header.sectionSizeHint(c)) for c in columns)
        return sum(widths) + 2 * self.frameWidth() + 12


def _text(form: str, *values: float) -> str:
    return "" if pd.isna(values[0]) else form.format(*values)


def _swatch(label: str) -> QPixmap:
    pixmap = QPixmap(10, 10)
    pixmap.fill(QColor(CLASS_COLORS.get(label, ERROR_COLOR)))
    return pixmap
