"""Work that may wait until the canvas has been painted: done once, however often it was asked for."""

from collections.abc import Callable

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

__all__ = ["Soon"]


class Soon(QTimer):
    """Calls a function some time after it was first asked for.

    Parameters
    ----------
    parent : QWidget
        With it the timer goes.
    act : callable
    pause : int
        Milliseconds; 0: when Qt has done what waits already.
    """

    def __init__(self, parent: QWidget, act: Callable[[], None], pause: int = 0) -> None:
        super().__init__(parent)
        self.setSingleShot(True)
        self.setInterval(pause)
        self.timeout.connect(act)

    def ask(self) -> None:
        """Have the function called, unless it is to be called anyway."""
        if not self.isActive():
            self.start()
