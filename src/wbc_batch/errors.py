"""What can go wrong, as one small tree.

Every error says in one sentence which file is meant, what is wrong with it and what to do. Each also
inherits the built-in exception a Python user would expect, and carries the exit code of the command line.
"""

from enum import IntEnum

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
]


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


class UnreachableError(ImageError, ConnectionError):
    """A store that a URL names does not answer. Nothing is known of its cells, so no row says so."""


class ModelError(WbcError, ValueError):
    """A model bundle is missing, damaged or does not fit."""


class RunError(WbcError, RuntimeError):
    """A run directory cannot be written, continued or read."""


class IncompleteRunError(RunError):
    """Some shards could not be done; what was done is kept, and the same command continues."""

    exit_code = ExitCode.INCOMPLETE


class ClusterError(WbcError, RuntimeError):
    """The Dask workers cannot be reached or do not fit this run."""
