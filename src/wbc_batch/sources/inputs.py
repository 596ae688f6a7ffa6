"""The inputs of a run, as they were named: checked against each other, and each with its name."""

import os
from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePath

import numpy as np

from wbc_batch.errors import InputError
from wbc_batch.names import composed
from wbc_batch.paths import absence, exists, is_file, is_folder, refuse_unanswered, resolved
from wbc_batch.sources.kinds import Kind, is_url, kind_of, stem
from wbc_batch.sources.stdin import PathList

__all__ = [
    "AnyInput",
    "Input",
    "check_inputs",
    "describe",
    "input_around",
    "local_paths",
    "name_inputs",
    "spelled",
]

_TWICE = "was given twice; its cells would be counted twice"

#: What can be named: a path, a URL, or the paths that came on standard input.
AnyInput = str | Path | PathList


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    Attributes
    ----------
    given : str
        Path or URL.
    kind : Kind
    name : str
        Of the group of cells that lie in no folder inside it.
    alone : bool
        Whether it is the only one; else its name comes before those of the folders inside it.
    """

    given: str
    kind: Kind
    name: str
    alone: bool

    @property
    def source(self) -> str:
        """What its cells have as `Cell.source`."""
        return spelled(self.given)

    def group_of(self, folder: str) -> str:
        """Name the group of cells that lie in a folder inside the input; "" is its top."""
        if not folder:
            return self.name
        return folder if self.alone else f"{self.name}/{folder}"


def spelled(item: AnyInput) -> str:
    """Spell an input as its user did, but for slashes."""
    if isinstance(item, PathList) or is_url(str(item)):
        return str(item).rstrip("/")
    return Path(item).as_posix()


def describe(item: AnyInput) -> str:
    """Name an input so that it is the same wherever it is named from."""
    if isinstance(item, PathList) or is_url(str(item)):
        return spelled(item)
    return str(Path(item).absolute())


def local_paths(items: Sequence[AnyInput]) -> list[Path]:
    """Keep the inputs that are files and folders, which workers must see."""
    return [Path(i) for i in items if not isinstance(i, PathList) and not is_url(str(i))]


def input_around(place: Path, items: Sequence[AnyInput]) -> str | None:
    """Find the input that a place, such as one for results, is or lies inside; None if there is none."""
    real = resolved(place)
    above = {_identity(path) for path in (real, *real.parents)}
    for path in local_paths(items):
        if _identity(resolved(path)) in above:
            return str(path)
    # Following the links of millions of paths would take too long.
    around = {parent for start in (real, place) for parent in _with_parents(_key(str(start)))}
    piped = (path for item in items if isinstance(item, PathList) for path in item)
    return next((path for path in piped if _key(path) in around), None)


def check_inputs(items: Sequence[AnyInput]) -> None:
    """Refuse inputs that are not there, or would be counted twice.

    Raises
    ------
    InputError
    """
    if not items:
        raise InputError("no input was given; give a folder of cell images")
    urls = [str(item).rstrip("/") for item in items if is_url(str(item))]
    for url in urls:
        if urls.count(url) > 1:
            raise InputError(f"{url} {_TWICE}")
    places: dict[Hashable, Path] = {}
    for path in local_paths(items):
        if not exists(path):
            refuse_unanswered(path)
            missing = absence(path, f"{path}: there is no such file or folder")
            raise InputError(f"{missing}; check the spelling")
        if not (is_folder(path) or is_file(path)):
            raise InputError(f"{path} is neither a file nor a folder; give a folder of cell images")
        place = _place(resolved(path))
        if place in places:
            raise InputError(f"{path} {_TWICE}")
        places[place] = path
    identity = lru_cache(maxsize=None)(_identity)
    for path in places.values():
        for parent in map(identity, resolved(path).parents):
            if parent in places:
                raise _inside(path, places[parent])
    if any(isinstance(item, PathList) for item in items):
        _check_many(items)


def _identity(path: Path) -> Hashable:
    """Return what all spellings of a place have in common, also where upper and lower case are one."""
    try:
        status = path.stat()
    except OSError:  # nothing is there yet
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else path


def _place(path: Path) -> Hashable:
    """Return the identity of a folder, or of a name in it: a file may have several, by hard links."""
    if is_folder(path):
        return _identity(path)
    return _identity(path.parent), composed(path.name).casefold(), _identity(path)


def _check_many(items: Sequence[AnyInput]) -> None:
    """Refuse what is there twice among paths that may be millions: hashes and folders are held alone."""
    hashes, folders = array("q"), set()
    for path in _each(items):
        key = _key(path)
        hashes.append(hash(key))
        folders.add(os.path.dirname(key))  # noqa: PTH120 - millions of them
    parents = {parent for folder in folders for parent in _with_parents(folder)}
    known = np.sort(hashes)
    repeated = set(known[1:][known[1:] == known[:-1]].tolist())
    suspects = set(known[np.isin(known, [hash(parent) for parent in parents])].tolist())
    if repeated or suspects:
        _name_the_first(items, repeated | suspects)


def _name_the_first(items: Sequence[AnyInput], suspects: set[int]) -> None:
    named: dict[str, str] = {}
    for path in _each(items):
        key = _key(path)
        if hash(key) in suspects:
            if key in named:
                raise InputError(f"{path} {_TWICE}")
            named[key] = path
    for path in _each(items):
        for parent in islice(_with_parents(_key(path)), 1, None):
            if parent in named:
                raise _inside(path, named[parent])


def _inside(path: str | Path, parent: str | Path) -> InputError:
    return InputError(
        f"{path} lies inside {parent}, which was also given; its cells would be counted twice"
    )


def _each(items: Sequence[AnyInput]) -> Iterator[str]:
    """All paths and URLs, those on standard input among them."""
    for item in items:
        yield from item if isinstance(item, PathList) else [str(item)]


def _key(path: str) -> str:
    """Return what paths to one place have in common, links aside."""
    return path.rstrip("/") if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - quicker


def _with_parents(place: str) -> Iterator[str]:
    yield place
    yield from map(str, PurePath(place).parents)


def name_inputs(items: Sequence[str | Path], kinds: Sequence[Kind], *, alone: bool) -> list[Input]:
    """Give inputs of known kinds their names.

    A name is a folder's or container's own; the way to it where two would be merged.
    """
    homes = [_home(item, kind) for item, kind in zip(items, kinds, strict=True)]
    names = [_name(home) for home in homes]
    places: dict[str, set[str]] = {}
    for home, name in zip(homes, names, strict=True):
        places.setdefault(name, set()).add(_absolute(home))
    return [
        Input(
            given=spelled(item),
            kind=kind,
            name=name if len(places[name]) == 1 else home,
            alone=alone,
        )
        for item, kind, home, name in zip(items, kinds, homes, names, strict=True)
    ]


def _home(item: str | Path, kind: Kind) -> str:
    """Find what names the cells of an input: itself, or the folder of a file that is one crop."""
    if is_url(str(item)):
        return str(item).rstrip("/")
    path = Path(item)
    return (path.absolute().parent if kind is Kind.FILE else path).as_posix()


def _absolute(home: str) -> str:
    return home if is_url(home) else str(resolved(home))


def _name(home: str) -> str:
    if is_url(home):
        return stem(home.rpartition("/")[2])
    path = resolved(home)
    return path.name if kind_of(path) is Kind.FOLDER else stem(path.name)
