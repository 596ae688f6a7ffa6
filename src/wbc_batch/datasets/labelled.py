"""Labelled cells: folders named after classes and prepared data sets, read, checked and prepared."""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.classifier.preprocessing import CanonicalCrop, Preprocessing, canonical_crop
from wbc_batch.datasets.class_folders import list_class_folders
from wbc_batch.datasets.manifest import (
    Entry,
    ManifestPart,
    hash_files,
    read_manifest,
)
from wbc_batch.datasets.naming import Datasets
from wbc_batch.errors import ContainerError, ImageError, InputError, UnreachableError
from wbc_batch.names import name_bytes
from wbc_batch.schema import CLASSES
from wbc_batch.sources import decode_crop, read_file

__all__ = [
    "LabelledCells",
    "files_digest",
    "merge",
    "prepare",
    "read_dataset",
    "read_datasets",
    "read_entries",
    "refuse_shared_images",
    "select",
    "tell_copies",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledCells:
    """Cells whose class is known.

    Attributes
    ----------
    names : tuple of str
        Name of the data set that each cell comes from.
    members : tuple of str
        Each cell's file inside its data set.
    labels : ndarray of int, shape (N,)
        Index into `wbc_batch.schema.CLASSES`.
    crops : ndarray of uint8, shape (N, S, S, 3)
        Canonical crops.
    sizes : ndarray of float32, shape (N,)
        Of their nuclei, see `wbc_batch.classifier.preprocessing.CanonicalCrop`.
    groups : tuple of str
        Each cell's patient or slide, empty where it is not known; empty if none is.
    hashes : tuple of str
        SHA-256 of each cell's file; empty if they were not read from files.
    """

    names: tuple[str, ...]
    members: tuple[str, ...]
    labels: NDArray[np.intp]
    crops: NDArray[np.uint8]
    sizes: NDArray[np.float32]
    groups: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 of names, members and labels: tells whether two splits are the same."""
        lines = sorted(
            f"{n}\t{m}\t{CLASSES[k]}"
            for n, m, k in zip(self.names, self.members, self.labels, strict=True)
        )
        return _sha256(lines)

    def counts(self) -> dict[str, dict[str, int]]:
        """Cells per data set and class."""
        found = Counter(zip(self.names, self.labels.tolist(), strict=True))
        return {
            name: {label: found[name, k] for k, label in enumerate(CLASSES)}
            for name in dict.fromkeys(self.names)
        }


def read_dataset(
    name: str,
    dataset: Path | ManifestPart,
    preprocessing: Preprocessing,
) -> LabelledCells:
    """Read a folder whose images lie in folders named after their classes, or a prepared data set.

    Parameters
    ----------
    name : str
        What to call the data set. Cells of a prepared one whose source is left open are named by it.
    dataset : Path or ManifestPart
        A folder that holds ``basophil/``, ``eosinophil/`` and so on, at any depth; or a part of a data set
        prepared by ``wbc-batch dataset prepare``.
    preprocessing : Preprocessing

    Returns
    -------
    LabelledCells

    Raises
    ------
    InputError
        If the data set is missing or empty, an image is of no class, is missing or cannot be read, is
        not the one that was prepared, or is there with two labels.
    """
    entries = _entries(name, dataset)
    labels = np.array([CLASSES.index(entry.label) for entry in entries], np.intp)
    crops, sizes, hashes = read_entries(entries, preprocessing)
    names = tuple(entry.source for entry in entries)
    members = tuple(entry.member for entry in entries)
    groups = tuple(entry.group for entry in entries)
    cells = LabelledCells(names, members, labels, crops, sizes, groups, hashes)
    _refuse_two_labels(cells)
    return cells


def read_datasets(datasets: Datasets, preprocessing: Preprocessing) -> LabelledCells:
    """Read data sets as `read_dataset` does, and put them behind one another.

    Parameters
    ----------
    datasets : mapping of str to Path or ManifestPart
        By their names.
    preprocessing : Preprocessing

    Returns
    -------
    LabelledCells

    Raises
    ------
    InputError
        If one of them cannot be used.
    """
    return merge([read_dataset(name, place, preprocessing) for name, place in datasets.items()])


def read_entries(
    entries: Sequence[Entry], preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], NDArray[np.float32], tuple[str, ...]]:
    """Read images, several at a time.

    Parameters
    ----------
    entries : sequence of Entry
    preprocessing : Preprocessing

    Returns
    -------
    crops : ndarray of uint8, shape (N, S, S, 3)
        Canonical crops.
    sizes : ndarray of float32, shape (N,)
        Of their nuclei.
    hashes : tuple of str
        SHA-256 of each file.

    Raises
    ------
    InputError
        If an image cannot be read, or is not the one that was prepared.
    """
    size = preprocessing.size
    crops = np.empty((len(entries), size, size, 3), np.uint8)
    sizes = np.empty(len(entries), np.float32)

    def read(place: int) -> str:
        crop, digest = _read(entries[place], preprocessing)
        crops[place], sizes[place] = crop.pixels, crop.nucleus_size
        return digest

    pool = ThreadPoolExecutor()
    try:
        hashes = tuple(pool.map(read, range(len(entries))))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody waits for the rest
    return crops, sizes, hashes


def files_digest(name: str, dataset: Path | ManifestPart) -> str:
    """Tell a data set by the names, labels and contents of its files, which takes no decoding.

    Parameters
    ----------
    name, dataset
        As for `read_dataset`.

    Returns
    -------
    str
        SHA-256, in hexadecimal.

    Raises
    ------
    InputError
        If the data set is missing or empty, an image is of no class, is missing or cannot be read.
    """
    entries = _entries(name, dataset)
    hashes = hash_files([entry.path for entry in entries])
    lines = sorted(
        f"{e.source}\t{e.member}\t{e.label}\t{digest}"
        for e, digest in zip(entries, hashes, strict=True)
    )
    return _sha256(lines)


def merge(parts: Sequence[LabelledCells]) -> LabelledCells:
    """Put data sets behind one another."""
    return LabelledCells(
        sum((part.names for part in parts), ()),
        sum((part.members for part in parts), ()),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.crops for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        sum((part.groups or ("",) * len(part) for part in parts), ()),
        sum((part.hashes or ("",) * len(part) for part in parts), ()),
    )


def select(cells: LabelledCells, chosen: NDArray[np.bool_] | Sequence[int]) -> LabelledCells:
    """Return the chosen cells: those that a mask marks, or those at some places, in that order."""
    places = np.arange(len(cells))[chosen]

    def pick(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[place] for place in places) if values else ()

    return LabelledCells(
        pick(cells.names),
        pick(cells.members),
        cells.labels[places],
        cells.crops[places],
        cells.sizes[places],
        pick(cells.groups),
        pick(cells.hashes),
    )


def refuse_shared_images(
    cells: LabelledCells, validation: LabelledCells, purposes: str = "training and validation"
) -> None:
    """Refuse training cells that are validation cells, too: the same file, or a copy under another name.

    Parameters
    ----------
    cells, validation : LabelledCells
    purposes : str
        What the two are for, in the sentence that says so.

    Raises
    ------
    InputError
    """
    held = dict(zip(_identities(validation), range(len(validation)), strict=True))
    shared = [(n, held[key]) for n, key in enumerate(_identities(cells)) if key in held]
    if shared:
        here, there = shared[0]
        raise InputError(
            f"{len(shared)} cells are both {purposes} cells, for example "
            f"{cells.members[here]} of {cells.names[here]}, which is the same image as "
            f"{validation.members[there]} of {validation.names[there]}; keep them apart, or let "
            "wbc-batch dataset prepare split them"
        )


def tell_copies(cells: LabelledCells) -> None:
    """Warn of images that are there several times, and count as often."""
    counts = Counter(digest for digest in cells.hashes if digest)
    copied = [n for n, digest in enumerate(cells.hashes) if counts[digest] > 1]
    if copied:
        more = len(copied) - len({cells.hashes[n] for n in copied})
        _log.warning(
            "%d of %d cells are copies of others but count as separate cells, for example %s of %s",
            *(more, len(cells), cells.members[copied[0]], cells.names[copied[0]]),
        )


def prepare(image: NDArray, preprocessing: Preprocessing) -> CanonicalCrop:
    """Make the canonical crop of one image."""
    return canonical_crop(as_rgb(image), preprocessing)


def _sha256(lines: Sequence[str]) -> str:
    return sha256(name_bytes("\n".join(lines))).hexdigest()


def _refuse_two_labels(cells: LabelledCells) -> None:
    first: dict[str, int] = {}
    for here, digest in enumerate(cells.hashes):
        there = first.setdefault(digest, here)
        if cells.labels[here] != cells.labels[there]:
            one, other = (
                f"{cells.members[n]} of {cells.names[n]}, a {CLASSES[cells.labels[n]]}"
                for n in (there, here)
            )
            raise InputError(
                f"two cells are the same image: {one}, and {other}; remove the one whose label is wrong"
            )


def _identities(cells: LabelledCells) -> list[str]:
    """Return what tells cells apart: their content where it is known, else their place."""
    hashes = cells.hashes or ("",) * len(cells)
    named = zip(hashes, cells.names, cells.members, strict=True)
    return [digest or f"{name}/{member}" for digest, name, member in named]


def _entries(name: str, dataset: Path | ManifestPart) -> list[Entry]:
    """List the cells of a data set; all are of one of the five classes."""
    if isinstance(dataset, Path):
        return [
            Entry(f.path, f.member, f.label, name, "", "", "")
            for f in list_class_folders(name, dataset)
        ]
    entries = read_manifest(dataset.manifest).select(dataset.split, dataset.source)
    for entry in entries:
        if entry.label not in CLASSES:
            raise InputError(
                f"{dataset}: {entry.member} is labeled {entry.label!r}, which is not a class; "
                f"the classes are {', '.join(CLASSES)}"
            )
    return [replace(entry, source=name) for entry in entries] if dataset.source else entries


def _read(entry: Entry, preprocessing: Preprocessing) -> tuple[CanonicalCrop, str]:
    """Read a cell: its canonical crop, and the hash of its file."""
    try:
        data = read_file(entry.path)
        digest = sha256(data).hexdigest()
        if entry.sha256 in ("", digest):
            return prepare(decode_crop(data), preprocessing), digest
    except ContainerError as error:  # what it says to do is for classifying
        what = str(error).partition(";")[0]
        raise InputError(
            f"{entry.path} cannot be used: {what}; each labeled cell must have its own file, so save the "
            "images as separate files"
        ) from error
    except UnreachableError:  # which says nothing of the image
        raise
    except ImageError as error:
        raise InputError(f"{entry.path} cannot be used: {error}; repair or remove it") from error
    raise InputError(
        f"{entry.path} has changed since the data set was prepared; "
        "restore the original image, or prepare the data set again"
    )
