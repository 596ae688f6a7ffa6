"""One run in one directory: its lock, its ``run.json``, and what may be continued in it."""

import os
import platform
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wbc_batch.errors import ExitCode, RunError, WbcError
from wbc_batch.files import held, refuse_misfits, try_replacing, try_writing, write_file, writing
from wbc_batch.ledger import committed, is_shard_file
from wbc_batch.names import command_text
from wbc_batch.paths import resolved
from wbc_batch.records import differences, read_json, write_json
from wbc_batch.schema import RECORD_FILE, REPORT_FILES, REPORT_FOLDERS, SHARDS

__all__ = [
    "BY_FOLDER",
    "ERROR_LOG",
    "Record",
    "Settings",
    "clear",
    "elsewhere",
    "lacking",
    "locked",
    "read_record",
    "recorded",
    "refuse_unfit_folder",
    "to_continue",
    "versions",
    "write_record",
]

#: Name of the file that keeps the traceback of an unexpected error.
ERROR_LOG = "error.log"
_LOCK = ".lock"
# The record comes last: by it alone a folder is known as a run's, also if not all of it could be removed.
_FILES = (ERROR_LOG, *REPORT_FILES, RECORD_FILE)
_PACKAGES = (
    "wbc-napari",
    "torch",
    "torchvision",
    "openvino",
    "dask",
    "distributed",
    "numpy",
    "opencv-python-headless",
    "pillow",
)

#: What `Settings.groups` is unless another rule was named.
BY_FOLDER = "by folder, or as the input names them"

_QUOTED = 1000  # characters of a command that a sentence may quote; more names a file

_ANEW = "choose another folder, or classify into this one again with --force"

#: ``run.json`` as a dictionary.
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What must be the same for a run to be continued; all as text that a person can compare.

    Attributes
    ----------
    version : str
        Of wbc-napari.
    model : str
        Name and digest.
    inputs : str
        As they were named.
    cells : str
        How many, and the digest of their identities.
    device, precision : str
        As they were asked for.
    backend : str
        As it was chosen.
    groups : str
        What cells are counted together.
    """

    version: str
    model: str
    inputs: str
    cells: str
    device: str
    precision: str
    backend: str
    groups: str = BY_FOLDER


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make a run directory, if need be, and keep other runs out of it.

    Raises
    ------
    RunError
        If the directory cannot be made or written to, holds files that are not a run's or in the way of
        them, or is in use.
    """
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        refuse_unfit_folder(run_dir)
    with held(run_dir / _LOCK, run_dir, "in use by another run"):
        _try_folders(run_dir)
        yield


def _try_folders(run_dir: Path) -> None:
    """Find out that a folder is read-only, or shows nothing, before anything in it is removed."""
    for folder in (run_dir, run_dir / SHARDS):
        with writing(folder):
            folder.mkdir(exist_ok=True)
            os.scandir(folder).close()
            try_writing(folder)


def refuse_unfit_folder(run_dir: Path) -> None:
    """Make sure that a folder holds nothing but what a run may have left in it.

    Raises
    ------
    RunError
        If it holds files that are not a run's or in the way of them.
    OSError
        If it is no folder, or cannot be listed.
    """
    refuse_misfits(run_dir, _FILES, (SHARDS, *REPORT_FOLDERS))
    names = _visible(run_dir)
    if RECORD_FILE in names:
        return
    # A run that was killed early leaves its shards; other people's folders may have this name, too.
    shards = _visible(run_dir / SHARDS) if SHARDS in names else set()
    if names - {SHARDS} or not all(map(is_shard_file, shards)):
        raise RunError(
            f"{run_dir} is not empty and does not hold an earlier run; choose a new folder for the "
            "results"
        )


def _visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def read_record(run_dir: Path) -> Record | None:
    """Read ``run.json``; None if there is none.

    Raises
    ------
    RunError
        If it is damaged. With the exit code 4, if it cannot be read.
    """
    return read_json(run_dir / RECORD_FILE, _ANEW)


def write_record(run_dir: Path, record: Record) -> None:
    """Write ``run.json``, wholly or not at all."""
    write_json(run_dir / RECORD_FILE, record)


def lacking(run_dir: Path, record: Record) -> int:
    """Count the cells of a run that no shard holds: not classified yet, or lost with a damaged file.

    Raises
    ------
    RunError
        If ``run.json`` does not say how many cells the run has.
    """
    cells = record.get("cells")
    if not isinstance(cells, int):
        raise RunError(f"{run_dir / RECORD_FILE} does not say how many cells the run has; {_ANEW}")
    return cells - sum(result.cells for result in committed(run_dir))


def to_continue(run_dir: Path, settings: Settings) -> Record | None:
    """Find the run that a directory holds a part of, if that is the one that is to be made.

    Returns
    -------
    dict or None
        Its record; None to begin anew.

    Raises
    ------
    RunError
        If the directory holds a finished and whole run, or one with other settings of which a part is
        done.
    """
    record = read_record(run_dir)
    if record is None:
        return None
    if record.get("state") == "finished" and lacking(run_dir, record) == 0:
        raise RunError(
            f"{run_dir} already holds a finished run; choose another folder, or add --force to "
            "replace it"
        )
    changed = differences(record.get("settings"), asdict(settings))
    begun = record.get("state") == "finished" or committed(run_dir)
    if changed and not begun:  # it had no time to do anything
        return None
    if changed:
        command = str(record.get("command") or "")
        if len(command) > _QUOTED:
            command = f'see "command" in {run_dir / RECORD_FILE}'
        raise RunError(
            f"{run_dir} holds an unfinished run with other settings "
            f"({'; '.join(changed)}{_named_otherwise(run_dir, record, settings)}); to finish it, "
            f"repeat the old command{elsewhere(run_dir, record)}{command and f': {command}'}; otherwise "
            "choose another folder, or add --force to start again"
        )
    return record


def _named_otherwise(run_dir: Path, record: Record, settings: Settings) -> str:
    """Say how the inputs were named, where that may be all that made other cells of them."""
    old, inputs = record.get("settings"), record.get("inputs")
    cells = str(old.get("cells")) if isinstance(old, dict) else ""
    as_many = cells != settings.cells and cells.split()[:1] == settings.cells.split()[:1]
    if not (as_many and isinstance(inputs, list)):
        return ""
    text = command_text(map(str, inputs))
    if len(text) > _QUOTED:
        text = f'see "inputs" in {run_dir / RECORD_FILE}'
    return f", the same number: give the input exactly as before, {text}"


def elsewhere(run_dir: Path, record: Record) -> str:
    """Say, in brackets, what the command of a run does not: that it began elsewhere, or was moved since."""
    begun, folder = record.get("directory"), record.get("folder")
    facts = []
    if begun and Path(begun) != Path.cwd():
        facts.append(f"in {begun}")
    if folder and resolved(folder) != resolved(run_dir):
        facts.append(f"with -o {resolved(run_dir)}")
    return f" ({', '.join(facts)})" if facts else ""


def clear(run_dir: Path) -> None:
    """Remove what runs write into a directory, and nothing else; nothing if a file is held open.

    Raises
    ------
    OSError
        If a file cannot be removed.
    """
    shards = [path for path in (run_dir / SHARDS).glob("*") if is_shard_file(path.name)]
    files = [*shards, *(run_dir / name for name in _FILES)]
    try_replacing(files)
    for name in REPORT_FOLDERS:
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for path in files:
        path.unlink(missing_ok=True)


@contextmanager
def recorded(run_dir: Path, record: Record) -> Iterator[None]:
    """Keep ``run.json`` true, whatever happens inside.

    Parameters
    ----------
    run_dir : Path
        Locked.
    record : dict
        What is known of the run; changed inside and here.
    """
    write_record(run_dir, record)
    (run_dir / ERROR_LOG).unlink(missing_ok=True)  # of an earlier try
    try:
        yield
    except BaseException as error:
        record["state"] = _state_after(error)
        record["error"] = str(error) or type(error).__name__
        if not isinstance(error, WbcError | KeyboardInterrupt):
            log = run_dir / ERROR_LOG
            write_file(log, traceback.format_exc().encode("utf-8", "backslashreplace"))
            error.__notes__ = [f"the traceback is in {log}"]
        with suppress(OSError):  # a full disk must not hide what went wrong
            write_record(run_dir, record)
        raise
    record["state"] = "finished"
    write_record(run_dir, record)


def _state_after(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    resumable = isinstance(error, WbcError) and error.exit_code == ExitCode.INCOMPLETE
    return "incomplete" if resumable else "failed"
