"""Standard streams that may fail before a command ends: who reads a pipe may stop, a disk may be full."""

import codecs
import io
import sys
from typing import Any, TextIO, cast

from wbc_batch.errors import WbcError, nobody_reads, reason

__all__ = ["outlast_readers"]


class _Output(io.FileIO):
    """Standard output: from the first failure on nothing is written any more."""

    _failed = False

    def write(self, data: Any) -> int:
        if not self._failed:
            try:
                return super().write(data)
            except OSError as error:
                self._failed = True
                self._tell(error)
        return len(data)

    def _tell(self, error: OSError) -> None:
        if not nobody_reads(error):  # else all that was wanted is there
            raise WbcError(
                f"standard output cannot be written ({reason(error)}); files that the command "
                "wrote are not affected"
            ) from error


class _Errors(_Output):
    """Standard error: there is nobody to tell."""

    def _tell(self, error: OSError) -> None:
        pass


def outlast_readers() -> None:
    """Let the command go on to its end, and its exit code, whatever becomes of what it prints.

    ``| head`` closes its output before, and not every terminal has every letter of a group's name.
    """
    sys.stdout = _lasting(sys.stdout, _Output)
    sys.stderr = _lasting(sys.stderr, _Errors)


def _lasting(stream: TextIO, kind: type[_Output]) -> TextIO:
    if stream is None:  # closed from the beginning
        return stream
    if stream.isatty():
        cast("io.TextIOWrapper", stream).reconfigure(errors=_errors(stream))
        return stream
    raw = kind(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, _errors(stream), line_buffering=True
    )


def _errors(stream: TextIO) -> str:
    """Choose what becomes of letters that a stream lacks: in UTF-8 these are names of files as they are."""
    as_it_is = stream.errors == "surrogateescape" and codecs.lookup(stream.encoding).name == "utf-8"
    return "surrogateescape" if as_it_is else "backslashreplace"
