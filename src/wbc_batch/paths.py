"""Paths that users name, looked at without an error, and what it means that one cannot be read.

`Path.exists` and its like raise where nobody may look, where a name is too long, or where links go in a
circle, depending on the version of Python. The functions here answer.
"""

import errno
import os
from pathlib import Path

from wbc_batch.errors import IncompleteRunError, UnreachableError, reason

__all__ = [
    "PASSING",
    "absence",
    "error_numbers",
    "exists",
    "is_file",
    "is_folder",
    "refuse_passing",
    "refuse_unanswered",
    "resolved",
    "unread",
]


def error_numbers(*names: str) -> frozenset[int]:
    """Numbers of errors, as far as this system has them."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


#: What the system says where it lacks something itself, or where a server of files does not answer: next time
#: all may be well. Not EIO, which a bad sector gives for ever.
PASSING = error_numbers(
    *("EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT"),
    *("EHOSTDOWN", "ENOTCONN", "ESHUTDOWN"),
)


def exists(path: str | Path) -> bool:
    """Tell whether a path leads to anything that can be looked at."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | Path) -> bool:
    """Tell whether a path leads to a regular file."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Tell whether a path leads to a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def absence(path: Path, sentence: str) -> str:
    """Say why a path does not lead to what is wanted: `sentence`, unless nobody may look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return f"{path} cannot be accessed ({reason(error)})"
    return sentence


def resolved(path: str | Path) -> Path:
    """Make a path absolute and follow its links, as far as they lead anywhere."""
    return Path(os.path.realpath(path))


def unread(path: str | Path, error: OSError) -> IncompleteRunError:
    """Say that a file of a run, which may be whole, cannot be read for now."""
    return IncompleteRunError(
        f"{path} cannot be read ({reason(error)}); make the files of the run readable for this user, then "
        "repeat the command"
    )


def refuse_passing(place: object, error: BaseException) -> None:
    """Keep what the system says, and what it does not say of a file, from being held against the file.

    Parameters
    ----------
    place : object
        What was read, to be named unless the error names a file itself.
    error : BaseException
        What reading it raised.

    Raises
    ------
    UnreachableError
        If `error` is one, or may be gone when the same is read again.
    """
    if isinstance(error, UnreachableError):
        raise error
    if isinstance(error, OSError) and error.errno in PASSING:
        name = error.filename if isinstance(error.filename, str) else place
        raise UnreachableError(f"{name} cannot be read for now: {reason(error)}") from error


def refuse_unanswered(path: str | Path) -> None:
    """Make sure that the system can tell what a path leads to, or that it leads nowhere.

    Raises
    ------
    UnreachableError
        If it cannot for now.
    """
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        refuse_passing(path, error)
    except ValueError:  # no file can have this name
        pass
