"""Cells in ZIP and TAR archives, read in place: nothing is unpacked."""

import bz2
import gzip
import lzma
import posixpath
import tarfile
import threading
import weakref
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError, InputError, reason
from wbc_batch.paths import refuse_passing
from wbc_batch.sources.cells import Cell, Place
from wbc_batch.sources.fetching import Fetch, refuse_large_file
from wbc_batch.sources.folders import is_hidden
from wbc_batch.sources.inputs import Input
from wbc_batch.sources.kinds import BZIP2, GZIP, XZ

__all__ = ["TarMembers", "ZipMembers", "list_tar", "list_zip"]

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,  # zipfile: a compression that it does not know
    RuntimeError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)
_COMPRESSIONS = ((GZIP, gzip.open), (BZIP2, bz2.open), (XZ, lzma.open))
_LOST = (
    "the archive is truncated or damaged here, and everything after this point is lost; copy it "
    "again"
)


def list_zip(item: Input) -> Iterator[Cell]:
    """List every file in a ZIP archive, in its own order; hidden ones are passed over as in a folder.

    Raises
    ------
    InputError
        If the archive holds no file, or its list of contents cannot be read.
    """
    try:
        with zipfile.ZipFile(item.given) as archive:
            infos = archive.infolist()
    except _DAMAGE as error:
        refuse_passing(item.given, error)
        raise InputError(
            f"{item.given}: the list of contents of this ZIP archive cannot be read "
            f"({reason(error)}); it may be truncated, so copy it again"
        ) from error
    names = map(_spelled, infos)
    # Of files of one name the last one counts, as it does for those who unpack the archive.
    members = dict.fromkeys(posixpath.normpath(name) for name in names if not name.endswith("/"))
    visible = [member for member in members if not _is_hidden(member)]
    if not visible:
        raise InputError(f"{item.given} holds no files; give an archive of cell images")
    for member in visible:
        yield Cell(item.source, member, None, _group(item, member))


class ZipMembers:
    """The files in a ZIP archive; any number of threads may fetch them."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGE as error:
            refuse_passing(path, error)
            raise ImageError(f"the ZIP archive cannot be read ({reason(error)})") from error
        weakref.finalize(self, self._archive.close)
        self._path = path
        # Where the archive spells a name in another way than its cell.
        self._respelled: dict[str, zipfile.ZipInfo] = {}
        for info in self._archive.infolist():
            member = posixpath.normpath(_spelled(info))
            if member != info.filename or member in self._respelled:
                self._respelled[member] = info

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give a way to the bytes of each cell."""
        for cell in cells:
            yield partial(self._read, cell.member)

    def _read(self, member: str) -> bytes:
        try:
            info = self._respelled.get(member) or self._archive.getinfo(member)
        except KeyError as error:
            raise ImageError("the file is no longer in the archive") from error
        if info.flag_bits & 0x1:
            raise ImageError("the file is encrypted in the archive")
        refuse_large_file(info.file_size)
        try:
            return self._archive.read(info)
        except _DAMAGE as error:
            refuse_passing(self._path, error)
            raise ImageError(f"the file is damaged in the archive ({reason(error)})") from error


def list_tar(item: Input) -> Iterator[Cell]:
    """List every file in a TAR archive, in its own order; hidden ones are passed over as in a folder.

    Where the archive breaks off, a last cell says so.

    Raises
    ------
    InputError
        If the archive holds no file, or not even its first one can be read.
    """
    empty = True
    path = Path(item.given)
    replaced = _replaced(path)
    try:
        with _tar_stream(path) as stream, _tar(stream) as archive:
            for info in _infos(archive):
                name = posixpath.normpath(info.name)
                if info.isdir() or _is_hidden(name) or info.offset in replaced:
                    continue
                empty = False
                place = Place(item.source, info.offset, info.offset)
                yield Cell(item.source, name, None, _group(item, name), place=place)
            broken = not _ends_well(stream, archive.offset)
            end = archive.offset
    except _DAMAGE as error:
        refuse_passing(item.given, error)
        if empty:
            raise InputError(
                f"{item.given} cannot be read as a TAR archive ({reason(error)}); copy it again"
            ) from error
        broken, end = True, archive.offset
    if broken and not empty:
        yield Cell(item.source, "", None, item.name, place=Place(item.source, end, end))
    if empty:
        raise InputError(f"{item.given} holds no files; give an archive of cell images")


def _replaced(path: Path) -> frozenset[int]:
    """Where the files are that a later one of the same name replaces, as ``tar -r`` leaves them behind."""
    try:
        status = path.stat()
    except OSError as error:  # listing it will say why
        refuse_passing(path, error)
        return frozenset()
    return _replaced_in(path.absolute(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _replaced_in(path: Path, _changed: int, _size: int) -> frozenset[int]:
    """Compare all names; that is another way through the archive, but a run lists it twice."""
    names, offsets = _sorted_members(path, folders=False)
    again = np.diff(names) == 0
    return frozenset(offsets[:-1][again].tolist())


def _sorted_members(
    path: Path, folders: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hashes of all names, sorted, and where their files are; those of one name in the archive's order.

    There may be tens of millions: 16 bytes for each are kept.
    """
    names, offsets = array("q"), array("q")
    try:
        with _tar_stream(path) as stream, _tar(stream) as archive:
            for info in _infos(archive):
                if folders or not info.isdir():
                    names.append(_hash(info.name))
                    offsets.append(info.offset)
    except _DAMAGE as error:  # what is there can be read
        refuse_passing(path, error)
    order = np.argsort(names, kind="stable")
    return np.asarray(names)[order], np.asarray(offsets)[order]


def _hash(name: str) -> int:
    return hash(posixpath.normpath(name))


def _infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        yield info


class TarMembers:
    """The files in a TAR archive; any number of threads may fetch them.

    A compressed archive can only be read forwards, so its files are fetched one after the other when they
    are asked for; of an uncompressed one only the place is noted then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        try:
            with path.open("rb") as file:
                self._compressed = _compression(file.read(6)) is not None
        except OSError as error:
            refuse_passing(path, error)
            raise ImageError(f"the TAR archive cannot be read ({reason(error)})") from error

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give a way to the bytes of each cell."""
        for cell in cells:
            way = partial(self._read, cell)
            yield _done(way) if self._compressed else way

    def _read(self, cell: Cell) -> bytes:
        if not cell.member:
            raise ImageError(_LOST)
        try:
            stream, archive = self._open()
            if self._compressed and not cell.place:
                raise ImageError(
                    "a compressed TAR archive can only be read from its beginning, so its images are not "
                    "shown after the run; unpack the archive and classify the folder to see them"
                )
            offset = cell.place.position if cell.place else self._find(cell.member)
            info = self._header(archive, stream, offset, cell.member)
            if info.islnk() or info.issym():
                if self._compressed:
                    raise ImageError(
                        "a link inside a compressed archive cannot be followed; unpack the archive"
                    )
                # A hard link is what its target was at that time: a later file of that name replaces it.
                offset = self._find(_target(info), info.offset if info.islnk() else None)
                info = self._header(archive, stream, offset, _target(info))
            if not info.isreg() or info.issparse():
                raise ImageError("this is not a regular file in the archive")
            refuse_large_file(info.size)
            stream.seek(info.offset_data)
            data = stream.read(info.size)
        except _DAMAGE as error:
            if isinstance(error, ImageError):
                raise
            refuse_passing(self._path, error)
            raise ImageError(f"the archive is damaged here ({reason(error)})") from error
        if len(data) < info.size:
            raise ImageError("the archive ends inside this file; copy it again")
        return data

    def _open(self) -> tuple[BinaryIO, tarfile.TarFile]:
        """Return this thread's own view of the archive, for reading moves it."""
        if not hasattr(self._local, "view"):
            stream = _tar_stream(self._path)
            self._local.view = stream, _tar(stream)
        return cast(tuple[BinaryIO, tarfile.TarFile], self._local.view)

    @staticmethod
    def _header(
        archive: tarfile.TarFile, stream: BinaryIO, offset: int, name: str
    ) -> tarfile.TarInfo:
        stream.seek(offset)
        info = tarfile.TarInfo.fromtarfile(archive)
        if posixpath.normpath(info.name) != name:
            raise ImageError(
                "the archive changed after it was listed; do not change it during a run"
            )
        return info

    def _find(self, member: str, before: int | None = None) -> int:
        """Where the last file of a name is, or the last one before some place."""
        names, offsets = self._members
        wanted = _hash(member)
        found = offsets[np.searchsorted(names, wanted) : np.searchsorted(names, wanted, "right")]
        if before is not None:
            found = found[found < before]
        if not found.size:
            raise ImageError("the file is not in the archive")
        return int(found[-1])

    @cached_property
    def _members(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each file is; only needed for links, and for cells that know their name alone."""
        return _sorted_members(self._path)


def _done(way: Fetch) -> Fetch:
    """Fetch now what `way` leads to, and keep the outcome."""
    try:
        data = way()
    except ImageError as error:
        return partial(_raise, error)
    return lambda: data


def _raise(error: ImageError) -> bytes:
    raise error


def _target(link: tarfile.TarInfo) -> str:
    """Name of what a link points to: a symbolic one starts from its own folder."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _tar_stream(path: Path) -> BinaryIO:
    file = path.open("rb")
    opener = _compression(file.read(6))
    file.seek(0)
    return cast(BinaryIO, opener(file) if opener else file)


def _tar(stream: BinaryIO) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=stream)


def _compression(head: bytes) -> Callable[[BinaryIO], Any] | None:
    return next((opener for magic, opener in _COMPRESSIONS if head.startswith(magic)), None)


def _ends_well(stream: BinaryIO, offset: int) -> bool:
    """Tell whether the block of zeros that ends an archive is there; `tarfile` does not ask for it."""
    stream.seek(offset)
    block = stream.read(tarfile.BLOCKSIZE)
    return block == bytes(tarfile.BLOCKSIZE)


def _group(item: Input, member: str) -> str:
    return item.group_of(posixpath.dirname(member))


def _spelled(info: zipfile.ZipInfo) -> str:
    """Return a name in a ZIP archive with the slashes that some programs on Windows write as backslashes.

    Only where there are no others: else a backslash is a letter. On Windows Python makes them all alike, so
    what it read is asked for.
    """
    name, read = info.filename, info.orig_filename.partition("\0")[0]
    if read.replace("\\", "/") == name:
        name = read
    return name if "/" in name else name.replace("\\", "/")


def _is_hidden(member: str) -> bool:
    return any(is_hidden(part) for part in member.split("/") if part != "..")
