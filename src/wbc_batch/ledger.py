"""Shards of a run: their columns, and which of them are done.

A shard is done when the JSON beside its Parquet file says so.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from wbc_batch.files import UNFINISHED, write_file
from wbc_batch.paths import unread
from wbc_batch.records import parse_json
from wbc_batch.schema import CELL_TYPES, SHARDS

__all__ = [
    "CELL_SCHEMA",
    "EXPORTED",
    "ShardResult",
    "commit",
    "committed",
    "committed_shards",
    "is_shard_file",
    "labels_of",
    "read_note",
    "read_whole",
]

#: Columns and types that every shard's Parquet file has.
CELL_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in CELL_TYPES.items()])

#: Name, without suffix, of the one shard of what napari exports as a run.
EXPORTED = "napari"

# As `wbc_batch.engine.plan.ShardSpec.stem` names them.
_STEM = r"\d{6,}-[0-9a-f]{16}"
_SHARD_FILE = re.compile(
    rf"({_STEM}|{EXPORTED})\.(json|parquet)|\.{_STEM}\..*{re.escape(UNFINISHED)}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What is known of a finished shard: all that a worker sends back.

    Attributes
    ----------
    shard_id : str
    number : int
        Place in the order of the run.
    file : str
        Name of the Parquet file.
    size : int
        Of that file, bytes.
    cells, errors : int
        Rows, and rows with ``status=error``.
    labels : dict of str to int
        Cells per label.
    device, precision, backend : str
        What the model ran on, and what ran it.
    seconds : float
        Wall time on the worker.
    """

    shard_id: str
    number: int
    file: str
    size: int
    cells: int
    errors: int
    labels: dict[str, int]
    device: str
    precision: str
    backend: str
    seconds: float


def commit(shards: Path, result: ShardResult, rows: bytes) -> None:
    """Write the rows of a shard, then the JSON that makes them count.

    Parameters
    ----------
    shards : Path
        The folder of the shards.
    result : ShardResult
    rows : bytes
        Content of the Parquet file.
    """
    write_file(shards / result.file, rows)
    note = (json.dumps(asdict(result), indent=1) + "\n").encode()
    write_file((shards / result.file).with_suffix(".json"), note)


def is_shard_file(name: str) -> bool:
    """Tell the names that runs give to files among the `SHARDS` from everybody else's."""
    return _SHARD_FILE.fullmatch(name) is not None


def committed(run_dir: Path) -> list[ShardResult]:
    """Read what is done, in the order of the run.

    A shard whose files are damaged or do not belong together does not count; it will be done anew.

    Raises
    ------
    IncompleteRunError
        If one may not be read, or not even listed: it may be whole.
    """
    shards = run_dir / SHARDS
    try:  # unlike glob, which finds nothing where nobody may look
        notes = [path for path in shards.iterdir() if path.suffix == ".json"]
    except (FileNotFoundError, NotADirectoryError):
        notes = []
    except OSError as error:
        raise unread(shards, error) from error
    found = map(read_whole, notes)
    return sorted((result for result in found if result), key=lambda result: result.number)


def committed_shards(run_dir: Path) -> list[Path]:
    """List the Parquet files of the finished shards of a run, in the order of its cells."""
    return [run_dir / SHARDS / result.file for result in committed(run_dir)]


def read_note(path: Path) -> ShardResult | None:
    """Read the JSON beside a shard; None if there is none, or it is damaged.

    Raises
    ------
    IncompleteRunError
        If it may not be read.
    """
    try:
        return ShardResult(**parse_json(path.read_text(encoding="utf-8")))
    except PermissionError as error:
        raise unread(path, error) from error
    except (OSError, ValueError, TypeError):
        return None


def read_whole(note: Path) -> ShardResult | None:
    """Read the JSON beside a shard whose Parquet file is there, and as large as it says; None else.

    Raises
    ------
    IncompleteRunError
        If one of them may not be read.
    """
    if (result := read_note(note)) is None:
        return None
    try:
        whole = (note.parent / result.file).stat().st_size == result.size
    except PermissionError as error:
        raise unread(error.filename, error) from error
    except (OSError, ValueError, TypeError):
        return None
    return result if whole else None


def labels_of(results: Iterable[ShardResult]) -> dict[str, int]:
    """Add up the cells per label."""
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.labels)
    return dict(sorted(total.items()))
