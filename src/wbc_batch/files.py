"""Files that are there wholly or not at all, and never written over unasked."""

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from wbc_batch.errors import InputError

__all__ = ["UNFINISHED", "refuse_existing", "write_file"]

#: Suffix of files, with a dot before their name, that are of no use after a run.
UNFINISHED = ".part"


def refuse_existing(output: Path) -> None:
    """Refuse to write over something.

    Raises
    ------
    InputError
        If `output` is a file, or a directory that is not empty.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"{output} is there already; remove it, or name another place with -o")


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there wholly or not at all, also after a power failure."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # not every system can open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
