"""The colours of the classes as Qt wants them."""

from qtpy.QtGui import QColor, QPixmap

from wbc_batch.schema import CLASS_COLORS, ERROR_COLOR

__all__ = ["colour_of", "swatch"]


def colour_of(label: str) -> QColor:
    """Return the colour of a label; that of errors for what is none."""
    return QColor(CLASS_COLORS.get(label, ERROR_COLOR))


def swatch(label: str, side: int = 10) -> QPixmap:
    """Return a square of the colour of a label, `side` pixels wide."""
    pixmap = QPixmap(side, side)
    pixmap.fill(colour_of(label))
    return pixmap
