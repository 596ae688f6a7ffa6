"""Cells in folder trees, and in files that are named one by one."""

import os
from collections.abc import Iterator
from pathlib import Path

from wbc_batch.errors import InputError, reason
from wbc_batch.paths import refuse_passing
from wbc_batch.sources.cells import Cell
from wbc_batch.sources.inputs import Input

__all__ = ["LITTER", "empty_folders", "is_hidden", "list_folder"]

#: Files that file managers leave behind, names in lower case. They are never cells.
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def is_hidden(name: str) -> bool:
    """Tell what nobody means by a cell: hidden files and folders, and the `LITTER`."""
    return name.startswith(".") or name.lower() in LITTER


def list_folder(item: Input) -> Iterator[Cell]:
    """List every file of a folder tree, whatever its name says.

    A file that turns out not to be an image becomes a row that says so. The exceptions are hidden files
    and folders and the `LITTER` of file managers. Links are followed. A zarr store is one such file: it
    has to be named as an input of its own.

    Raises
    ------
    InputError
        If the folder holds no file, cannot be listed, or contains itself through a link.
    """
    folder = Path(item.given)
    empty = True
    for member in _walk(folder):
        if _is_empty_folder(member):
            continue
        empty = False
        # The whole path: slide-1 of one patient is not slide-1 of another.
        yield Cell(item.source, member, None, item.group_of(member.rpartition("/")[0]))
    if empty:
        raise InputError(f"{folder} holds no files; give a folder of cell images")


def empty_folders(folder: Path) -> Iterator[Path]:
    """Find the folders of a tree in which there is nothing to list.

    Raises
    ------
    InputError
        If one cannot be listed, or contains itself through a link.
    """
    return (folder / member for member in _walk(folder) if _is_empty_folder(member))


def _is_empty_folder(member: str) -> bool:
    return not member or member.endswith("/")


def _walk(top: Path) -> Iterator[str]:
    """Members of a folder, sorted, and folders without any, with a slash behind their names.

    Without recursion, for folders may be nested deeper than calls.
    """
    top_itself, entries = _opened(top)
    if not entries:
        yield ""
    todo = [("", top_itself, iter(entries))]
    while todo:
        prefix, _, left = todo[-1]
        for name, is_folder in left:
            if not is_folder or name.lower().endswith(".zarr"):
                yield prefix + name
                continue
            folder = top / prefix / name
            here, inside = _opened(folder)
            if any(here == above for _, above, _ in todo):
                raise InputError(f"{folder} is a link to a folder above it; remove the link")
            if not inside:
                yield f"{prefix}{name}/"
            todo.append((f"{prefix}{name}/", here, iter(inside)))
            break
        else:
            todo.pop()


def _opened(folder: Path) -> tuple[tuple[int, int], list[tuple[str, bool]]]:
    """Device and inode of a folder, and its sorted entries, each with whether it is a folder."""
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, _is_folder(entry)) for entry in entries if not is_hidden(entry.name)
            )
    except OSError as error:
        refuse_passing(folder, error)
        raise InputError(
            f"{folder}: this folder cannot be listed ({reason(error)}); make it readable or move it away"
        ) from error
    return (status.st_dev, status.st_ino), names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where nobody may look: a row will say so
        return False
