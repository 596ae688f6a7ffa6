"""One training in one directory: its lock, its ``training.json``, and whether it may go on there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wbc_batch.errors import RunError
from wbc_batch.files import UNFINISHED, held, refuse_misfits, try_replacing, unwritable, writing
from wbc_batch.paths import exists, is_folder
from wbc_batch.records import differences, now, read_json, write_json

__all__ = ["BUNDLE", "CHECKPOINT", "RECORD", "begin", "finish", "is_finished", "locked"]

#: Names inside the directory of a training.
RECORD, CHECKPOINT, BUNDLE = "training.json", "checkpoint.pt", "bundle"
_LOCK = ".lock"
_ANEW = "choose another folder, or add --force"
# The record comes last: by it alone a folder is known as a training's, also if not all could be removed.
_FILES = (CHECKPOINT, "history.csv", "history.png", RECORD)
_BUNDLE_FILES = ("model.safetensors", "model.json", "README.md")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Make the directory, if need be, and keep other trainings out of it.

    Raises
    ------
    RunError
        If the directory cannot be made, holds files that are not a training's, or is in use; or instead of
        the `OSError` of a file in it that cannot be written, see `wbc_batch.files.unwritable`.
    """
    refuse_strangers(output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    with held(output / _LOCK, output, "in use by another training"), unwritable(output):
        yield


def refuse_strangers(output: Path) -> None:
    """Raise RunError if the directory holds something that is no training, or is in the way of one."""
    if exists(output) and not is_folder(output):
        raise RunError(f"{output} is a file; choose a new folder for the training")
    refuse_misfits(output, _FILES, (BUNDLE,))
    refuse_misfits(output / BUNDLE, _BUNDLE_FILES, ())
    if not exists(output) or exists(output / RECORD):
        return
    if any(not path.name.startswith(".") for path in output.iterdir()):
        raise RunError(
            f"{output} is not empty and holds no earlier training; choose a new folder for this one"
        )


def is_finished(output: Path, identity: Mapping[str, str], force: bool) -> bool:
    """Say whether the directory holds the very training that `identity` describes, finished.

    Parameters
    ----------
    output : Path
    identity : mapping of str to str
        What must be the same for a training to go on, or a part of it.
    force : bool
        Give up whatever the directory holds.

    Raises
    ------
    RunError
        If the directory holds another training, or something else.
    """
    refuse_strangers(output)
    record = None if force else read_json(output / RECORD, _ANEW)
    if record is None:
        return False
    if changed := differences(record.get("identity"), identity):
        state = "a finished" if record.get("state") == "finished" else "an unfinished"
        raise RunError(
            f"{output} holds {state} training with other settings or cells "
            f"({'; '.join(changed)}); repeat the old command, choose another folder, "
            "or add --force to start over"
        )
    return record.get("state") == "finished"


def begin(output: Path, identity: Mapping[str, str], force: bool) -> None:
    """Note what the training is; drop what an older one left, unless this one goes on with it."""
    if force or read_json(output / RECORD, _ANEW) is None:
        _clear(output)
        record = {"state": "started", "identity": dict(identity), "started": now()}
        write_json(output / RECORD, record)


def finish(output: Path) -> None:
    """Note that the bundle is written; the checkpoint has served."""
    record = read_json(output / RECORD, _ANEW) or {}
    write_json(output / RECORD, record | {"state": "finished", "finished": now()})
    (output / CHECKPOINT).unlink(missing_ok=True)


def _clear(output: Path) -> None:
    """Remove what a training writes, and nothing else; nothing if a file is held open."""
    names = (*(f"{BUNDLE}/{name}" for name in _BUNDLE_FILES), *_FILES)
    files = [*output.glob(f".*{UNFINISHED}"), *(output / name for name in names)]
    try_replacing(files)
    for path in files:
        path.unlink(missing_ok=True)
