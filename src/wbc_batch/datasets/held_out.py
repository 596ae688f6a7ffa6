"""A part of the training cells to validate on, where nobody named validation cells."""

from collections import Counter, defaultdict
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from wbc_batch.datasets.labelled import LabelledCells
from wbc_batch.names import name_bytes

__all__ = ["SHARE", "held_out"]

#: Fraction of the cells of each data set and class that is held out.
SHARE = 0.2


def held_out(cells: LabelledCells, share: float = SHARE) -> NDArray[np.bool_]:
    """Choose cells to validate on: always the same ones, class by class and data set by data set.

    What belongs together stays on one side: the cells of a patient or slide where these are known, else
    the copies of one image.

    Parameters
    ----------
    cells : LabelledCells
    share : float
        Of each class in each data set, rounded; of one or two cells none.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    kinds = list(zip(cells.names, cells.labels.tolist(), strict=True))
    missing = Counter({kind: round(share * count) for kind, count in Counter(kinds).items()})
    units: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place in range(len(cells)):
        units[_unit(cells, place)].append(place)
    chosen = np.zeros(len(cells), bool)
    for unit in sorted(units, key=_rank):
        counts = Counter(kinds[place] for place in units[unit])
        wanted = sum(min(count, missing[kind]) for kind, count in counts.items())
        if wanted > 0 and 2 * wanted >= len(units[unit]):
            chosen[units[unit]] = True
            missing -= counts  # keeps what is above zero
    return chosen


def _rank(unit: tuple[str, str]) -> bytes:
    return sha256(name_bytes("\0".join(unit))).digest()


def _unit(cells: LabelledCells, place: int) -> tuple[str, str]:
    if cells.groups and cells.groups[place]:
        return cells.names[place], cells.groups[place]
    if cells.hashes and cells.hashes[place]:
        return "", cells.hashes[place]
    return cells.names[place], cells.members[place]
