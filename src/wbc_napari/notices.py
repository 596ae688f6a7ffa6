"""What is the user's to mend is told in one sentence, never as a traceback."""

from collections.abc import Callable

from napari.utils.notifications import show_error

from wbc_batch.errors import WbcError

__all__ = ["telling"]


def telling(action: Callable[[], object]) -> None:
    """Call a function; show its `WbcError`, if it raises one, as a notification."""
    try:
        action()
    except WbcError as error:
        show_error(str(error))
