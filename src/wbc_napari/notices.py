"""What the user is told beside the pages: in one sentence, no traceback, no HTML. Knows no Qt."""

from collections.abc import Callable

from napari.utils import notifications

from wbc_batch.errors import WbcError

__all__ = ["plain", "show_error", "show_info", "show_warning", "telling"]

#: A mark that is not seen, and after which Qt finds no tag and no entity.
_UNSEEN = "\u200b"


def plain(text: str) -> str:
    """Return a text that Qt does not take for HTML where it guesses: names of files may look so."""
    return text.replace("<", f"<{_UNSEEN}").replace("&", f"&{_UNSEEN}")


def show_error(sentence: str) -> None:
    """Show what went wrong."""
    notifications.show_error(plain(sentence))


def show_warning(sentence: str) -> None:
    """Show what may not be meant so."""
    notifications.show_warning(plain(sentence))


def show_info(sentence: str) -> None:
    """Show what was done."""
    notifications.show_info(plain(sentence))


def telling(action: Callable[[], object]) -> None:
    """Call a function; show its `WbcError`, if it raises one, as a notification."""
    try:
        action()
    except WbcError as error:
        show_error(str(error))
