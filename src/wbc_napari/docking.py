"""The docks of this plugin share one place: one below the other they would not fit on a small screen."""

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["Docked"]

#: Name of the property by which the plugin knows what is its own.
_OURS = "wbc_napari_dock"


class Docked(QWidget):
    """What a dock holds: takes a place beside the other docks, and lets go of the viewer on close."""

    _closed = False

    def let_go(self) -> None:
        """Stop what is under way and let go of the viewer."""
        raise NotImplementedError  # every dock holds something else

    def showEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Take a place beside the other docks."""
        super().showEvent(event)
        _share_place(self)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Let go of the viewer, once, when the dock is closed: napari takes the widget out of it."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and not self._closed:
            self._closed = True
            self.let_go()


def _share_place(widget: QWidget) -> None:
    """Put the dock of a widget behind the tab of another one of this plugin, if there is one, and show it."""
    dock = _parent(widget, QDockWidget)
    window = _parent(dock, QMainWindow)
    if dock is None or window is None or dock.property(_OURS):
        return
    others = [other for other in window.findChildren(QDockWidget) if other.property(_OURS)]
    dock.setProperty(_OURS, True)
    for other in others:
        if window.dockWidgetArea(other) == window.dockWidgetArea(dock) and not other.isFloating():
            window.tabifyDockWidget(other, dock)
            dock.raise_()


def _parent(child: QObject | None, kind: type) -> "QWidget | None":
    while child is not None and not isinstance(child, kind):
        child = child.parent()
    return child
