"""Widgets that show a session, and only while somebody sees them."""

from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtWidgets import QWidget

from wbc_napari.soon import Soon

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["Follower"]


class Follower(QWidget):
    """Keeps up with a session: soon after each of its signals, or, hidden meanwhile, once it is shown.

    Parameters
    ----------
    pause : int
        Milliseconds between a signal and `refresh`, see `wbc_napari.soon.Soon`.
    """

    #: Name of the session's signal that is listened to.
    follows: ClassVar[str] = "changed"

    def __init__(self, pause: int = 0) -> None:
        super().__init__()
        self._session: Session | None = None
        self._soon = Soon(self, self.refresh, pause)

    def refresh(self) -> None:
        """Show what the session holds now."""
        raise NotImplementedError  # every widget shows something else

    def set_session(self, session: "Session | None") -> None:
        """Follow another session, or none."""
        if self._session is not None:
            getattr(self._session, self.follows).disconnect(self._on_signal)
        self._session = session
        if session is not None:
            getattr(session, self.follows).connect(self._on_signal)
        if self.isVisible():
            self.refresh()

    def _on_signal(self, _: Any) -> None:
        if self.isVisible():
            self._soon.ask()

    def showEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Take in what the session has come to meanwhile."""
        super().showEvent(event)
        self.refresh()
