"""Which cells the page shows, and their pictures."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.errors import WbcError
from wbc_batch.pages import picture_uri
from wbc_batch.report.differential import MAX_NOVELTY
from wbc_batch.schema import STATUS_OK
from wbc_batch.sources import cell_of, read_image
from wbc_batch.sources.cells import path_of

__all__ = ["MAX_GROUPS", "Canonical", "Picks", "Plate", "make_plates", "place_of"]

#: Cells of one label and group on the page: this many of the least confident, and of the most confident.
LEAST_CONFIDENT = 16
MOST_CONFIDENT = 8

#: Groups that the page shows; the tables beside it hold all.
MAX_GROUPS = 100

#: From an image, uint8 (H, W, 3), to its canonical crop, uint8 (S, S, 3).
Canonical = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class Picks:
    """Chooses the cells of each label and group that the page shows, from a stream of any length.

    The least confident come first: they are the ones worth a look. Ties keep the order of the run.
    """

    def __init__(self, least: int = LEAST_CONFIDENT, most: int = MOST_CONFIDENT) -> None:
        self.least, self.most = least, most
        self._kept: dict[tuple[str, str], pd.DataFrame] = {}
        self._groups: set[str] = set()

    def add(self, cells: pd.DataFrame) -> None:
        """Consider some more cells (the columns `wbc_batch.schema.CELL_COLUMNS`)."""
        classified = cells[cells["status"] == STATUS_OK]
        if len(self._groups) == MAX_GROUPS:
            classified = classified[classified["group"].isin(self._groups)]
        for key, part in classified.groupby(["group", "label"], sort=False):
            group, label = str(key[0]), str(key[1])
            if group not in self._groups:
                if len(self._groups) == MAX_GROUPS:
                    continue
                self._groups.add(group)
            if (group, label) in self._kept:
                part = pd.concat([self._kept[group, label], part], ignore_index=True)
            self._kept[group, label] = self._narrow(part)

    def of(self, group: str, label: str) -> pd.DataFrame:
        """Return the cells chosen for one label of a group, rising in confidence."""
        return self._kept.get((group, label), pd.DataFrame())

    def budget(self, total: int) -> int:
        """Share some bytes among the labels of all groups that have cells."""
        return total // max(len(self._kept), 1)

    def _narrow(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Keep both ends of the cells ordered by confidence; narrowing again loses nothing."""
        order = cells.sort_values("confidence", kind="stable")
        if len(order) <= self.least + self.most:
            return order
        return pd.concat([order.head(self.least), order.tail(self.most)])


@dataclass(frozen=True, slots=True)
class Plate:
    """One cell as the page shows it.

    Attributes
    ----------
    name : str
        File name, or file name and index.
    place : str
        The whole way to the crop, for those who look for it.
    label, predicted : str
    confidence : float
    unlike : bool
        Whether the cell is unlike the training data: see `MAX_NOVELTY`.
    reviewed : str
        What a reviewer said; empty if nothing.
    original, canonical : str
        JPEG as a data URI; empty where there is no picture.
    problem : str
        Why there is no picture; empty where there is one.
    """

    name: str
    place: str
    label: str
    predicted: str
    confidence: float
    unlike: bool
    reviewed: str
    original: str
    canonical: str
    problem: str


def make_plates(
    cells: pd.DataFrame,
    canonical: Canonical | None,
    base: Path | None,
    budget: int,
) -> list[Plate]:
    """Read the pictures of some cells.

    Parameters
    ----------
    cells : DataFrame
        Rows of a run.
    canonical : callable or None
        Gives the canonical crop of an image; None where the run does not say how they were made.
    base : Path or None
        The folder that relative inputs start from; None for the current one.
    budget : int
        Bytes that the pictures may take in the page. Cells beyond it are left out, the
        first is always there.

    Returns
    -------
    list of Plate
        In the order of `cells`; a picture that cannot be read any more leaves a plate that says so.
    """
    plates: list[Plate] = []
    for row in cells.to_dict("records"):
        plate = _plate(row, canonical, base)
        budget -= len(plate.original) + len(plate.canonical)
        if budget < 0 and plates:
            break
        plates.append(plate)
    return plates


def place_of(row: Mapping[Hashable, Any]) -> str:
    """Name the whole way to a crop: source, member, and position in a stack."""
    member = row["member"]
    place = path_of(row["source"], member if isinstance(member, str) else "")
    return place if pd.isna(row["index"]) else f"{place} [{int(row['index'])}]"


def _plate(row: Mapping[Hashable, Any], canonical: Canonical | None, base: Path | None) -> Plate:
    original, cut, problem = "", "", ""
    try:
        image = read_image(cell_of(row), base)
        original = picture_uri(image)
        cut = picture_uri(canonical(image)) if canonical else ""
    except (WbcError, OSError, cv2.error) as error:
        problem = str(error)
    place = place_of(row)
    reviewed = row.get("reviewed_label")  # NaN in a table where other cells were reviewed
    return Plate(
        name=PurePosixPath(place).name,
        place=place,
        label=row["label"],
        predicted=row["predicted"],
        confidence=float(row["confidence"]),
        unlike=(row.get("novelty") or 0.0) > MAX_NOVELTY,
        reviewed=reviewed if isinstance(reviewed, str) else "",
        original=original,
        canonical=cut,
        problem=problem,
    )
