"""The manifest of a prepared data set: which image is what, and in which split.

A prepared data set is a folder with ``manifest.csv`` (`COLUMNS`; a row per image) and ``dataset.json``, which
says how the split was made and where each source's images lie (``roots``). The images stay where they are.
A manifest without a ``dataset.json`` beside it is read as well: its paths start from its own folder.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

from wbc_batch.csv_rows import read_rows
from wbc_batch.datasets.class_folders import OUT_OF_CLASS
from wbc_batch.datasets.splits import ASIDE, SplitCell
from wbc_batch.errors import InputError, reason
from wbc_batch.files import write_together
from wbc_batch.paths import is_file, resolved
from wbc_batch.progress import Progress, silent
from wbc_batch.records import parse_json

__all__ = [
    "COLUMNS",
    "Entry",
    "Manifest",
    "ManifestPart",
    "hash_files",
    "is_manifest",
    "read_manifest",
    "write_manifest",
]

MANIFEST, DATASET = "manifest.csv", "dataset.json"

#: Columns of ``manifest.csv``. ``path`` starts from the root of its source; ``group`` is patient or slide.
COLUMNS = ("path", "label", "source", "split", "sha256", "group")
_NEEDED = COLUMNS[:4]


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a prepared data set.

    Attributes
    ----------
    path : Path
        Where it lies.
    member : str
        Its path as the manifest has it.
    label, source, split, sha256, group : str
        The last two are empty where the manifest does not say.
    """

    path: Path
    member: str
    label: str
    source: str
    split: str
    sha256: str
    group: str


@dataclass(frozen=True)
class ManifestPart:
    """The images of one split, of one source or of all.

    Attributes
    ----------
    manifest : Path
        ``manifest.csv``, or the folder it lies in.
    split : str
    source : str or None
        None: all sources.
    """

    manifest: Path
    split: str
    source: str | None = None

    def __str__(self) -> str:
        of = f" ({self.source})" if self.source else ""
        return f"{self.manifest}:{self.split}{of}"


@dataclass(frozen=True)
class Manifest:
    """A prepared data set, as read.

    Attributes
    ----------
    path : Path
        The CSV file.
    entries : tuple of Entry
    """

    path: Path
    entries: tuple[Entry, ...]

    def sources(self, split: str) -> list[str]:
        """Names of the sources that a split has images of, in the manifest's order."""
        return list(dict.fromkeys(e.source for e in self.entries if e.split == split))

    def select(self, split: str, source: str | None = None) -> list[Entry]:
        """Entries of a split, whose files are there.

        Raises
        ------
        InputError
            If the data set has no such split, or a file of it is missing.
        """
        chosen = [e for e in self.entries if e.split == split and source in (None, e.source)]
        if not chosen:
            splits = ", ".join(dict.fromkeys(e.split for e in self.entries))
            raise InputError(f"{self.path} has no split {split!r}; its splits are {splits}")
        missing = [e for e in chosen if not is_file(e.path)]
        if missing:
            raise InputError(
                f"{missing[0].path} is missing ({len(missing):,} of {len(chosen):,} images of "
                f"{self.path}:{split} are); if they were moved, enter the new folder of "
                f"{missing[0].source!r} under roots in {self.path.with_name(DATASET)}"
            )
        return chosen


def is_manifest(path: Path) -> bool:
    """Tell a prepared data set (its folder, or its CSV file) from a folder of classes."""
    return path.suffix.lower() == ".csv" or is_file(path / DATASET)


def read_manifest(path: Path) -> Manifest:
    """Read a prepared data set.

    Parameters
    ----------
    path : Path
        The folder or the CSV file.

    Returns
    -------
    Manifest

    Raises
    ------
    InputError
        If it cannot be read, lacks a column or a value, an image is listed twice or with two labels, or two
        of its splits share an image or a patient.
    """
    file = path if path.suffix.lower() == ".csv" else path / MANIFEST
    roots = _read_roots(file.with_name(DATASET))
    entries = []
    for number, row in _read_rows(file):
        empty = [column for column in _NEEDED if not row[column]]
        if empty:
            raise InputError(f"{file}: row {number} has no {empty[0]}; add one, or remove the row")
        root = roots.get(row["source"], file.parent)
        values = [row.get(column) or "" for column in COLUMNS]
        entries.append(Entry(root / row["path"], *values))
    if not entries:
        raise InputError(f"{file} lists no images; prepare the data set again")
    _refuse_shared(file, entries)
    return Manifest(file, tuple(entries))


def write_manifest(
    folder: Path, cells: Sequence[SplitCell], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write ``manifest.csv`` and ``dataset.json``.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    cells : sequence of SplitCell
    facts : dict
        What else ``dataset.json`` says, before roots, counts and digest.

    Returns
    -------
    dict
        What ``dataset.json`` holds: `facts`; ``roots``; ``counts`` by split, source and label; ``digest``,
        the SHA-256 of ``manifest.csv``, which the same images, names and seed give again.

    Raises
    ------
    RunError
        If they cannot be written; nothing is left then.
    """
    ordered = sorted(cells, key=lambda cell: (cell.file.source, cell.file.member))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in ordered:
        file = cell.file
        writer.writerow((file.member, file.label, file.source, cell.split, cell.sha256, file.group))
    content = table.getvalue().encode("utf-8", "surrogateescape")
    record = {
        **facts,
        "roots": {c.file.source: _root(folder, c.file.root) for c in ordered},
        "counts": _counts(ordered),
        "digest": sha256(content).hexdigest(),
    }
    description = json.dumps(record, indent=2) + "\n"
    write_together(folder, {MANIFEST: content, DATASET: description.encode()})
    return record


def hash_files(paths: Sequence[Path], progress: Progress = silent) -> list[str]:
    """Hash files, several at a time.

    Parameters
    ----------
    paths : sequence of Path
    progress : callable
        Called with the number of files done and of all.

    Returns
    -------
    list of str
        SHA-256, in hexadecimal.

    Raises
    ------
    InputError
        If a file cannot be read or is empty.
    """
    hashes = []
    pool = ThreadPoolExecutor()
    try:
        for value in pool.map(_hash_file, paths):
            hashes.append(value)
            progress(len(hashes), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody waits for the rest
    return hashes


def _hash_file(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({reason(error)}); make it readable or remove it"
        ) from error
    if not content:
        raise InputError(f"{path} is empty; copy it again or remove it")
    return sha256(content).hexdigest()


def _root(folder: Path, root: Path) -> str:
    """Path of a source as ``dataset.json`` has it.

    Images below the folder that the data set lies in are named from there: that folder can be moved
    as a whole.
    """
    place, neighbourhood = resolved(root), resolved(folder).parent
    if place.is_relative_to(neighbourhood):
        return PurePath(os.path.relpath(place, resolved(folder))).as_posix()
    return place.as_posix()


def _counts(cells: Iterable[SplitCell]) -> dict[str, dict[str, dict[str, int]]]:
    """Images by split, source and label."""
    found = Counter((cell.split, cell.file.source, cell.file.label) for cell in cells)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (split, source, label), number in sorted(found.items()):
        counts.setdefault(split, {}).setdefault(source, {})[label] = number
    return counts


def _read_roots(path: Path) -> dict[str, Path]:
    try:
        roots = parse_json(path.read_text(encoding="utf-8"))["roots"]
        return {source: path.parent / root for source, root in roots.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as the description of a data set; prepare the data set again"
        ) from error


def _read_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows, each with its number."""
    rows = read_rows(file, errors="surrogateescape")
    _, header = next(rows, (0, []))
    missing = [column for column in _NEEDED if column not in header]
    if missing:
        raise InputError(
            f"{file} has no column {missing[0]!r}; a manifest has the columns {', '.join(COLUMNS)}"
        )
    for number, row in rows:
        yield number, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))


def _refuse_difference(file: Path, one: Entry, other: Entry) -> None:
    """Refuse two lines about one image that say different things."""
    for here, there in ((one.split, other.split), (one.label, other.label)):
        if here != there:
            raise InputError(
                f"{file}: {one.member} ({here}) and {other.member} ({there}) are the same "
                "image; remove one of the two lines"
            )


def _refuse_shared(file: Path, entries: Sequence[Entry]) -> None:
    """Refuse an image that is listed twice or has two labels, and a split that shares one, or a patient."""
    seen: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        if entry.split in ASIDE:
            continue
        place = os.path.normpath(entry.path)
        if (other := seen.setdefault(("file", place), entry)) is not entry:
            _refuse_difference(file, other, entry)
            raise InputError(f"{file} lists {entry.member} twice; remove one of the two lines")
        if entry.sha256:
            _refuse_difference(file, seen.setdefault(("image", entry.sha256), entry), entry)
        if entry.group and entry.split != OUT_OF_CLASS:  # these are never trained on
            other = seen.setdefault(("group", entry.source, entry.group), entry)
            if other.split != entry.split:
                raise InputError(
                    f"{file}: cells of {entry.group!r} are in two splits, {other.split} ({other.member}) and "
                    f"{entry.split} ({entry.member}); keep them in one"
                )
