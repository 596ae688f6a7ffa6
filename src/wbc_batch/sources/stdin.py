"""Paths that come on standard input, kept so that they can be read more than once."""

import shutil
import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from os import fsdecode
from pathlib import Path
from typing import BinaryIO

from wbc_batch.errors import InputError
from wbc_batch.files import scratch, writing

__all__ = ["STDIN", "PathList", "stdin_kept"]

#: What stands for the paths on standard input.
STDIN = "-"
_BLOCK = 1 << 20
_UTF_16 = (BOM_UTF16_LE, BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class PathList:
    """The paths that came on standard input, in a file: one a line, or each ended by NUL.

    A byte order mark before them is passed over. `InputError` is raised while they are read, if they are
    in UTF-16, or on Windows not in UTF-8.
    """

    file: Path

    def __str__(self) -> str:
        return STDIN

    def __iter__(self) -> Iterator[str]:
        with self.file.open("rb") as stream:
            head = stream.read(_BLOCK)
            if head.startswith(_UTF_16):  # as of Windows PowerShell
                raise InputError("the paths on standard input are in UTF-16; write them in UTF-8")
            stream.seek(len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0)
            zero = b"\0" in head
            for line in _split(stream, b"\0" if zero else b"\n"):
                name = line if zero else line.rstrip(b"\r")
                if name if zero else name.strip():  # a line of blanks is no name
                    yield _decoded(name)


@contextmanager
def stdin_kept(
    inputs: Sequence[str | Path], stream: BinaryIO | None = None
) -> Iterator[list[str | Path | PathList]]:
    """Put the paths that come on standard input in the place of ``-``.

    Parameters
    ----------
    inputs : sequence of str or Path
    stream : binary file, optional
        Default: standard input.

    Yields
    ------
    list
        The inputs; the `PathList` among them is there as long as the block runs.

    Raises
    ------
    InputError
        If ``-`` was named twice.
    IncompleteRunError
        If there is no room for the paths.
    """
    count = sum(str(item) == STDIN for item in inputs)
    if count == 0:
        yield list(inputs)
        return
    if count > 1:
        raise InputError("'-' was given twice; there is only one standard input")
    if stream is None and sys.stdin is not None:  # None: it is closed, so no paths come
        stream = sys.stdin.buffer
    with scratch() as folder:
        kept = PathList(Path(folder, "paths"))
        with writing(kept.file), kept.file.open("wb") as spool:
            shutil.copyfileobj(stream or BytesIO(), spool)
        yield [kept if str(item) == STDIN else item for item in inputs]


def _decoded(name: bytes) -> str:
    try:
        return fsdecode(name)
    # On Windows, whose own lists are in the terminal's code page.
    except UnicodeDecodeError as error:
        raise InputError(
            "the paths on standard input are not UTF-8; write them in UTF-8"
        ) from error


def _split(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    if end == b"\n":
        yield from (line.rstrip(b"\n") for line in stream)
        return
    rest = b""
    while block := stream.read(_BLOCK):
        *whole, rest = (rest + block).split(end)
        yield from whole
    yield rest
