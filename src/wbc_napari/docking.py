"""The docks of this plugin share one place: one below the other they would not fit on a small screen."""

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["share_place"]

#: Name of the property by which the plugin knows what is its own.
_OURS = "wbc_napari_dock"


def share_place(widget: QWidget) -> None:
    """Put the dock of a widget behind the tab of another one of this plugin, if there is one, and show it.

    Parameters
    ----------
    widget : QWidget
        That its dock holds; in a window that is shown.
    """
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
