"""The label that pages show their sentences in."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

__all__ = ["sentence_label"]


def sentence_label() -> QLabel:
    """Make a label that breaks lines, and shows as it is what looks like HTML: names of files may do so."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    return label
