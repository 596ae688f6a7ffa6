"""What can go wrong, as one small tree.

Every error says in one sentence which file is meant, what is wrong with it and what to do. Each also
inherits the built-in exception a Python user would expect, and carries the exit code of the command line.
Workers send them through Dask, which makes one anew by the ``__new__`` that comes first: an `OSError`'s
must be it where there is one.
"""

import errno
import os
from enum import IntEnum
from importlib.util import find_spec

__all__ = [
    "ClusterError",
    "ContainerError",
    "ExitCode",
    "ImageError",
    "IncompleteRunError",
    "InputError",
    "ModelError",
    "RunError",
    "UnreachableError",
    "WbcError",
    "in_a_line",
    "missing",
    "nobody_reads",
    "reason",
    "refuse_missing",
    "visible",
]


_ON_WINDOWS = os.name == "nt"

# All but the line break: C0, DEL and C1 of ECMA-48.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 10}


class ExitCode(IntEnum):
    """Exit codes of ``wbc-batch``."""

    OK = 0
    FATAL = 1
    USAGE = 2
    CELL_ERRORS = 3
    INCOMPLETE = 4
    INTERRUPTED = 130


class WbcError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code: ExitCode = ExitCode.FATAL


class InputError(WbcError, ValueError):
    """An input that was named cannot be used: it is missing, empty or of no known kind."""

    exit_code = ExitCode.USAGE


class ImageError(WbcError, ValueError):
    """One image cannot be read or classified; it becomes a row with ``status=error``."""


class ContainerError(ImageError):
    """A file holds many images where one should be: it has to be named as an input of its own."""


class UnreachableError(ConnectionError, ImageError):
    """A file system, or a store that a URL names, does not answer for now.

    Nothing is known of its cells, so no row says so.
    """

    exit_code = ExitCode.INCOMPLETE


class ModelError(WbcError, ValueError):
    """A model bundle is missing, damaged or does not fit."""


class RunError(WbcError, RuntimeError):
    """A run directory cannot be written, continued or read."""


class IncompleteRunError(RunError):
    """Some shards could not be done; what was done is kept, and the same command continues."""

    exit_code = ExitCode.INCOMPLETE


class ClusterError(WbcError, RuntimeError):
    """The Dask workers cannot be reached or do not fit this run."""


def in_a_line(said: BaseException | str, most: int = 200) -> str:
    """Return the beginning of what an error of a library says, without its line breaks."""
    return (" ".join(str(said).split()) or type(said).__name__)[:most]


def visible(text: str) -> str:
    """Write control characters out, which terminals obey and names of files may hold; not line breaks."""
    return text.translate(_CONTROLS)


def reason(error: BaseException) -> str:
    """Say why it failed, to stand in brackets: what the system says, without the name of the file."""
    return in_a_line(getattr(error, "strerror", None) or error).rstrip(".").lower()


def nobody_reads(error: OSError) -> bool:
    """Tell whether a pipe cannot be written because its reader has left; Windows may call that invalid."""
    return isinstance(error, BrokenPipeError) or (_ON_WINDOWS and error.errno == errno.EINVAL)


def missing(what: str, extra: str) -> str:
    """Say that something is not installed, and which extra of this package brings it."""
    return f'{what} is not installed; pip install "wbc-napari[{extra}]"'


def refuse_missing(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages that an extra of this package brings.

    Raises
    ------
    InputError
        If one of them is not installed.
    """
    for name in packages:
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # the package around it is missing, too
            found = None
        if found is None:
            raise InputError(missing(f"the package {name}", extra))
