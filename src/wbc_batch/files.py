"""Files that are there wholly or not at all, locks, and what it means that something cannot be written."""

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO
from uuid import uuid4

from wbc_batch.errors import IncompleteRunError, RunError, WbcError, reason
from wbc_batch.paths import PASSING, error_numbers, exists, is_file, is_folder

__all__ = [
    "UNFINISHED",
    "fresh",
    "held",
    "refuse_existing",
    "refuse_misfits",
    "removed",
    "replacing",
    "scratch",
    "try_replacing",
    "try_writing",
    "unfinished",
    "unwritable",
    "write_file",
    "write_together",
    "writing",
]

#: Suffix of files, with a dot before their name, that are of no use after a run.
UNFINISHED = ".partial"

# Letters of the file of a shard, the longest that a run writes by `write_file`.
_LONGEST_NAME = 31

# What the system says where no file can be written for now, whichever it is.
_FOR_NOW = PASSING | error_numbers("ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG")


def refuse_existing(output: Path, *, even_empty: bool = False) -> None:
    """Refuse to write over something.

    Parameters
    ----------
    output : Path
    even_empty : bool
        Over an empty folder, too.

    Raises
    ------
    RunError
        If `output` is there and is no empty folder; or is one that nobody may look into.
    """
    with writing(output):
        if os.path.lexists(output) and (  # a link that leads nowhere, too
            even_empty or not is_folder(output) or any(output.iterdir())
        ):
            raise RunError(f"{output} already exists; remove it, or choose another path with -o")


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
        if os.path.lexists(path) and is_folder(path) != (kind == "folder"):
            raise RunError(
                f"{path} is in the way of a {kind} of the results; move it away, or choose another "
                "folder"
            )


def unfinished(path: Path) -> Path:
    """Name beside `path` for what will take its place; always the same, so that leftovers do not pile up."""
    return path.with_name(f".{path.name}{UNFINISHED}")


def removed(path: Path) -> Path:
    """Remove what has a name, if anything: a link itself, not what it leads to; a folder with all in it."""
    if is_folder(path) and not os.path.islink(path):  # noqa: PTH114
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink(missing_ok=True)
    return path


def fresh(path: Path) -> BinaryIO:
    """Create a file in place of what has its name.

    Where others may write to the folder, they may have put a link there: it is never written through.
    """
    return removed(path).open("xb")


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there wholly or not at all, also if the power fails.

    As far as the system empties the caches of the drive: on macOS it does not, when asked as it is here.
    """
    _write_files(path.parent, {path.name: content})


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that are of use together only: none takes its place before all are written.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    contents : mapping of str to bytes
        By the names of the files, in the order in which they take their places.

    Raises
    ------
    RunError
        If the folder or a file cannot be written, see `writing`.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_files(folder, contents)


def _write_files(folder: Path, contents: Mapping[str, bytes | memoryview]) -> None:
    temporary = {name: folder / f".{name}.{uuid4().hex}{UNFINISHED}" for name in contents}
    try:
        for name, content in contents.items():
            with fresh(temporary[name]) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, written in temporary.items():
            written.replace(folder / name)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)
    with suppress(OSError):  # not every system can open a folder
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def try_writing(folder: Path) -> None:
    """Make sure that files can be made in a folder; raises the `OSError` if not.

    Where paths may not be long, that is found out, too: no file of a run has a longer name.
    """
    trial = folder / f".{_LONGEST_NAME * '0'}.{uuid4().hex}{UNFINISHED}"
    trial.touch()
    trial.unlink()


def try_replacing(files: Iterable[Path]) -> None:
    """Make sure that files may be replaced and removed, before any is; raises the `OSError` if not.

    On Windows nobody may remove or rename what a program has open. To give a file the name that it has
    changes nothing, and is refused there all the same.
    """
    for path in files:
        if os.path.lexists(path):
            path.rename(path)


def _in_use(path: str | Path, error: OSError) -> IncompleteRunError:
    return IncompleteRunError(
        f"{path} cannot be replaced ({reason(error)}); close the program that has it open, or choose "
        "another path, then repeat the command"
    )


def _unwritten(path: Path, error: OSError) -> RunError:
    if error.errno in _FOR_NOW:
        return IncompleteRunError(
            f"{path} cannot be written ({reason(error)}); fix that, then repeat the command to "
            "continue"
        )
    if isinstance(error, PermissionError) and error.filename2 and exists(error.filename2):
        # What takes its place was written beside it. On Windows nobody may replace what is open.
        return _in_use(error.filename2, error)
    return RunError(
        f"{path} cannot be used for results ({reason(error)}); choose a path that you can write to"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say that a file or folder cannot be written, whatever the system says in the block.

    Raises
    ------
    RunError
        Instead of an `OSError`; an `IncompleteRunError` where it is not to do with this file, as with a
        full disk.
    """
    try:
        yield
    except WbcError:  # some are of the system's kind, too
        raise
    except OSError as error:
        raise _unwritten(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which has another name; and that of `path` if the block ends well."""
    temporary = unfinished(path)
    with writing(path):
        file = fresh(temporary)
        try:
            with file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Say that files in a folder cannot be written; the block may do more than write, unlike `writing`.

    Raises
    ------
    RunError
        See `writing`; instead of an `OSError` which says that nothing can be written any
        more, or that something in this folder may not be changed.
    """
    try:
        yield
    except OSError as error:
        place = Path(error.filename) if isinstance(error.filename, str) else folder
        refusal = _unwritten(place, error)
        if isinstance(refusal, IncompleteRunError):
            raise refusal from error
        if isinstance(error, PermissionError) and folder in place.parents:
            if is_file(place) and os.access(place.parent, os.W_OK):  # it alone stays as it is
                raise _in_use(place, error) from error
            raise _unwritten(place.parent, error) from error  # the file may have a name for now
        raise


@contextmanager
def scratch() -> Iterator[str]:
    """Make a folder for temporary files, and remove it in the end.

    Raises
    ------
    IncompleteRunError
        If there is no place for it.
    """
    try:
        # What is still open stays on Windows and NFS; it must not spoil what is done.
        folder = TemporaryDirectory(prefix="wbc-batch-", ignore_cleanup_errors=True)
    except OSError as error:
        raise IncompleteRunError(
            f"temporary files cannot be written ({reason(error)}); free some disk space, or set "
            "TMPDIR to another folder, then repeat the command to continue"
        ) from error
    with folder as place:
        yield place


@contextmanager
def held(lock: Path, place: Path, state: str) -> Iterator[None]:
    """Keep other processes out while the block runs; the lock ends with the process, however that ends.

    Parameters
    ----------
    lock : Path
        A file, made if it is not there.
    place : Path
        What it keeps.
    state : str
        What that is if another process holds the lock, such as ``in use by another run``.

    Raises
    ------
    RunError
        If another process does, or the file cannot be made.
    """
    from filelock import FileLock, Timeout  # slow to import, and of no use to the plugin

    guard = FileLock(lock, timeout=0)
    try:
        with warnings.catch_warnings():
            # Of file systems without locks, where the file itself is one.
            warnings.simplefilter("ignore")
            guard.acquire()
        if not exists(lock):  # the one that held it has just removed it
            raise Timeout(str(lock))
    except Timeout:
        guard.release()
        raise RunError(
            f"{place} is {state}; wait for that to end, or choose another path (if nothing else is "
            f"running, remove {lock}, which a killed process left behind)"
        ) from None
    except OSError as error:
        raise _unwritten(place, error) from error
    try:
        yield
    finally:
        guard.release()
