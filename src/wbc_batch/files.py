"""Files that are there wholly or not at all."""

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["UNFINISHED", "write_file"]

#: Suffix of files, with a dot before their name, that are of no use after a run.
UNFINISHED = ".part"


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
