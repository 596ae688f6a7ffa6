"""The identity of a cell, and the listing of cells in folder trees."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from wbc_batch.errors import InputError

__all__ = ["LITTER", "Cell", "list_cells"]

#: Files that file managers leave behind, names in lower case. They are never cells.
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass(frozen=True, slots=True)
class Cell:
    """One crop that was listed.

    Attributes
    ----------
    source : str
        The input as the user gave it, with forward slashes.
    member : str
        Path of the crop inside `source`, with forward slashes; empty if `source` is the crop.
    index : int or None
        Position inside a stack; None for a crop that is a file.
    group : str
        The folder the crop lies in: its path inside the input, with forward slashes; at the top, the
        input's own name. Where several inputs were named, their names come first.
    """

    source: str
    member: str
    index: int | None
    group: str

    @property
    def cell_id(self) -> str:
        """16 hexadecimal digits that depend on `source`, `member` and `index` alone."""
        index = "" if self.index is None else str(self.index)
        # NUL cannot occur in a path; surrogateescape: names that are not UTF-8 are names, too.
        identity = "\0".join((self.source, self.member, index)).encode("utf-8", "surrogateescape")
        return blake2b(identity, digest_size=8).hexdigest()


def list_cells(inputs: Sequence[str | Path]) -> Iterator[Cell]:
    """List every cell of folders and image files, in a fixed order, decoding nothing.

    Every file of a folder tree is listed, whatever its name says: a file that turns out not to be
    an image becomes a row that says so, and nothing is passed over in silence. The exceptions are
    hidden files and folders (their name begins with a dot) and the `LITTER` of file managers. Links
    are followed. Inside a folder, files and folders come in the order of their names' code points.

    Parameters
    ----------
    inputs : sequence of str or Path
        Folders and image files, read in the given order.

    Yields
    ------
    Cell

    Raises
    ------
    InputError
        Before the first cell: if an input is missing, is neither a file nor a folder, or lies
        inside another one. Later: if a folder cannot be listed, or contains itself through a link,
        or an input holds no cell at all.
    """
    paths = [Path(item) for item in inputs]
    _check(paths)
    names = _group_names(paths)
    for path, name in zip(paths, names, strict=True):
        if path.is_dir():
            yield from _folder_cells(path, name, alone=len(paths) == 1)
        else:
            yield Cell(path.as_posix(), "", None, name)


def _check(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("no input was named; name a folder of cell images")
    places: dict[Path, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where nobody may look
            raise InputError(f"{path}: there is no such file or folder; check the spelling")
        if not (path.is_dir() or path.is_file()):
            raise InputError(f"{path} is neither a file nor a folder; name a folder of cell images")
        place = path.resolve()
        if place in places:
            raise InputError(f"{path} was named twice; its cells would be counted twice")
        places[place] = path
    for place, path in places.items():
        for parent in place.parents:
            if parent in places:
                raise InputError(
                    f"{path} lies inside {places[parent]}, which was named, too; "
                    "its cells would be counted twice"
                )


def _group_names(paths: Sequence[Path]) -> list[str]:
    """Name of each input's own group: its folder's; as it was given where two would be merged."""
    folders = [path if path.is_dir() else path.absolute().parent for path in paths]
    places: dict[str, set[Path]] = {}
    for folder in folders:
        place = folder.resolve()
        places.setdefault(place.name, set()).add(place)
    names = [folder.resolve().name for folder in folders]
    return [
        name if len(places[name]) == 1 else folder.as_posix()
        for name, folder in zip(names, folders, strict=True)
    ]


def _folder_cells(folder: Path, name: str, *, alone: bool) -> Iterator[Cell]:
    source = folder.as_posix()
    empty = True
    for member in _walk(folder, "", ()):
        empty = False
        parent = member.rpartition("/")[0]
        # The whole path: slide-1 of one patient is not slide-1 of another.
        group = parent if parent and alone else f"{name}/{parent}" if parent else name
        yield Cell(source, member, None, group)
    if empty:
        raise InputError(f"{folder} holds no files; name a folder of cell images")


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Members of `folder`, sorted; `above` are device and inode of the folders it lies in."""
    entries = _sorted_entries(folder)
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise InputError(f"{folder} is a link to a folder above it; remove the link")
    for name, is_folder in entries:
        if is_folder:
            yield from _walk(folder / name, f"{prefix}{name}/", (*above, here))
        else:
            yield prefix + name


def _sorted_entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, _is_folder(entry))
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in LITTER
            )
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise InputError(
            f"{folder}: this folder cannot be listed ({reason}); make it readable or move it away"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where nobody may look: a row will say so
        return False
