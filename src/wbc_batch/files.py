"""Paths that users name, looked at without an error; files that are there wholly or not at all.

`Path.exists` and its like raise where nobody may look, where a name is too long, or where links go in a
circle, depending on the version of Python. The functions here answer.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from wbc_batch.errors import InputError, RunError

__all__ = [
    "UNFINISHED",
    "absence",
    "exists",
    "is_file",
    "is_folder",
    "refuse_existing",
    "refuse_misfits",
    "resolved",
    "write_file",
]

#: Suffix of files, with a dot before their name, that are of no use after a run.
UNFINISHED = ".part"


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
        return f"{path} cannot be looked at ({(error.strerror or type(error).__name__).lower()})"
    return sentence


def resolved(path: str | Path) -> Path:
    """Make a path absolute and follow its links, as far as they lead anywhere."""
    return Path(os.path.realpath(path))


def refuse_existing(output: Path) -> None:
    """Refuse to write over something.

    Raises
    ------
    InputError
        If `output` is a file, or a directory that is not empty.
    """
    if is_file(output) or (is_folder(output) and any(output.iterdir())):
        raise InputError(f"{output} is there already; remove it, or name another place with -o")


def refuse_misfits(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    """Make sure that results can take their places in a folder, before there are any.

    Parameters
    ----------
    folder : Path
    files, folders : iterable of str
        Names of what will be written into it.

    Raises
    ------
    RunError
        If a folder is where a file belongs, or something else where a folder does.
    """
    wanted = {name: "file" for name in files} | {name: "folder" for name in folders}
    for name, kind in wanted.items():
        path = folder / name
        if os.path.lexists(path) and os.path.isdir(path) != (kind == "folder"):
            raise RunError(
                f"{path} is in the way of a {kind} of the results; move it away, or name another folder"
            )


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
