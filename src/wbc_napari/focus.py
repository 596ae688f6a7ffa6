"""Who gets the keys of a review."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

__all__ = ["keep_keys"]


def keep_keys(field: QWidget) -> None:
    """Leave the keys where they are when a field is clicked: after a choice they shall label cells again.

    A combo box would search its items for them, a check box would take Space. Tab still reaches the field.
    """
    field.setFocusPolicy(Qt.FocusPolicy.TabFocus)
