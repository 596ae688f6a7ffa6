"""Labelled cells: folders named after classes, read, checked and prepared."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop
from wbc_batch.errors import ImageError, InputError
from wbc_batch.schema import CLASSES
from wbc_batch.sources import Cell, list_cells, read_image
from wbc_batch.synthetic import draw_cells

__all__ = ["LabelledCells", "drawn_cells", "merge", "prepare", "read_dataset", "sampling_weights"]

# Power of a kind's size by which it counts in its class: 1 as it comes, 0 all kinds alike.
_EVENNESS = 0.5


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
    """

    names: tuple[str, ...]
    members: tuple[str, ...]
    labels: NDArray[np.intp]
    crops: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 of names, members and labels: tells whether two splits are the same."""
        lines = sorted(
            f"{n}\t{m}\t{CLASSES[k]}"
            for n, m, k in zip(self.names, self.members, self.labels, strict=True)
        )
        return sha256("\n".join(lines).encode()).hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Cells per data set and class."""
        found = Counter(zip(self.names, self.labels.tolist(), strict=True))
        return {
            name: {label: found[name, k] for k, label in enumerate(CLASSES)}
            for name in dict.fromkeys(self.names)
        }


def read_dataset(name: str, folder: Path, preprocessing: Preprocessing) -> LabelledCells:
    """Read a folder whose images lie in folders named after their classes.

    Parameters
    ----------
    name : str
        What to call the data set.
    folder : Path
        Holds ``basophil/``, ``eosinophil/`` and so on, at any depth.
    preprocessing : Preprocessing

    Returns
    -------
    LabelledCells

    Raises
    ------
    InputError
        If the folder is missing or empty, a file lies in a folder that is no class, or an image cannot
        be read.
    """
    cells = list(list_cells([folder]))
    labels = np.array([_label(cell) for cell in cells], np.intp)
    with ThreadPoolExecutor() as pool:
        crops = list(pool.map(lambda cell: _read(cell, preprocessing), cells))
    members = tuple(cell.member for cell in cells)
    return LabelledCells((name,) * len(cells), members, labels, np.stack(crops))


def drawn_cells(count: int, seed: int, preprocessing: Preprocessing) -> LabelledCells:
    """Draw synthetic cells (`wbc_batch.synthetic`); their data set is called ``drawn``."""
    crops, labels = [], []
    for start in range(0, count, 100):  # pictures are large, canonical crops are not
        some = min(100, count - start)
        images, names = draw_cells(some, seed=seed * 10_000 + start)
        crops += [prepare(image, preprocessing) for image in images]
        labels += [CLASSES.index(name) for name in names]
    members = tuple(f"{seed}-{n}" for n in range(count))
    return LabelledCells(("drawn",) * count, members, np.array(labels, np.intp), np.stack(crops))


def merge(parts: Sequence[LabelledCells]) -> LabelledCells:
    """Put data sets behind one another."""
    return LabelledCells(
        sum((part.names for part in parts), ()),
        sum((part.members for part in parts), ()),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.crops for part in parts]),
    )


def prepare(image: NDArray, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Make the canonical crop of one image."""
    return canonical_crop(as_rgb(image), preprocessing).pixels


def sampling_weights(cells: LabelledCells) -> NDArray[np.float64]:
    """How often each cell is drawn in training: classes equally, kinds within a class more evenly.

    A kind is what a data set's file names tell by their leading letters, such as the band (``BNE_``) and
    segmented (``SNE_``) neutrophils of PBC. Within a class each kind counts by the square root of its size,
    so that many band cells do not make "neutrophil" mean "band".

    Returns
    -------
    ndarray of float64, shape (N,)
        Sums to 1.
    """
    kinds = [
        (name, label, re.sub("[^A-Za-z].*", "", PurePosixPath(member).name))
        for name, member, label in zip(
            cells.names, cells.members, cells.labels.tolist(), strict=True
        )
    ]
    size = Counter(kinds)
    total: defaultdict[int, float] = defaultdict(float)
    for kind, count in size.items():
        total[kind[1]] += count**_EVENNESS
    weights = np.array([size[kind] ** (_EVENNESS - 1) / total[kind[1]] for kind in kinds])
    return weights / weights.sum()


def _label(cell: Cell) -> int:
    name = PurePosixPath(cell.group).name
    if name not in CLASSES:
        raise InputError(
            f"{Path(cell.source, cell.member)} lies in the folder {name!r}, which is no class; "
            f"the classes are {', '.join(CLASSES)}"
        )
    return CLASSES.index(name)


def _read(cell: Cell, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    try:
        return prepare(read_image(cell), preprocessing)
    except ImageError as error:
        path = Path(cell.source, cell.member)
        raise InputError(
            f"{path} cannot be used for training: {error}; repair or remove it"
        ) from error
