"""The review of a table of cells: labels by a reader, one history of changes, an order to look at them.

Plain data: no layer, no file, no window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.errors import InputError
from wbc_batch.records import now
from wbc_batch.schema import LABELS
from wbc_napari.tables import PENDING, current_labels, reviewed_labels

__all__ = [
    "NOT_CLASSIFIED",
    "ORDERS",
    "Change",
    "Reading",
    "Review",
    "queue",
    "shuffled",
]

#: What stands for the label of a cell that could not be read or classified, and was not reviewed.
NOT_CLASSIFIED = "not classified"

#: Orders of the queue: column, and whether the largest comes first.
ORDERS = {
    "Least confident first": ("confidence", False),
    "Smallest margin first": ("margin", False),
    "Most novel first": ("novelty", True),
    "Class by class": ("label", False),
    "As in the table": ("", False),
}


@dataclass(frozen=True)
class Change:
    """One cell's label before and after; "" where there is none."""

    row: int
    cell_id: str
    old: str
    new: str
    by: str
    at: str


#: Changes that are made, and taken back, together.
Step = tuple[Change, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """What one reader said of each cell: label and time, "" where nothing yet."""

    label: NDArray[np.object_]
    at: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class _History:
    """Steps of one reader, the last one last: those that can be undone, and made again."""

    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)


class Review:
    """Labels of cells by one or more readers; every change can be undone by who made it.

    Parameters
    ----------
    cell_ids : sequence of str
        One per row; "" for a row that is no cell.
    reader : str
        Whose labels are changed.
    clock : callable
        Gives the time of a change.
    """

    def __init__(
        self, cell_ids: Sequence[str], reader: str, clock: Callable[[], str] = now
    ) -> None:
        self.cell_ids = np.asarray(cell_ids, object)
        self.readings: dict[str, Reading] = {}
        self._clock = clock
        self._histories: dict[str, _History] = {}
        self.reader = ""
        self.read_as(reader)

    def read_as(self, reader: str) -> None:
        """Make someone the reader; what others said stays as it is."""
        if not reader.strip():
            raise InputError("A review needs the name of its reader; enter one.")
        self.reader = reader.strip()
        if self.reader not in self.readings:
            empty = np.full(len(self.cell_ids), "", object)
            self.readings[self.reader] = Reading(empty, empty.copy())
            self._histories[self.reader] = _History()

    @property
    def labels(self) -> NDArray[np.object_]:
        """Labels by the present reader."""
        return self.readings[self.reader].label

    @property
    def times(self) -> NDArray[np.object_]:
        """When they were given."""
        return self.readings[self.reader].at

    @property
    def reviewed(self) -> NDArray[np.bool_]:
        """Which cells the present reader has labelled."""
        return self.labels != ""

    def relabel(self, rows: Sequence[int] | NDArray[np.intp], label: str) -> tuple[Change, ...]:
        """Give cells a label, in one step of the history.

        Returns
        -------
        tuple of Change
            Of the cells that had another label before.
        """
        return self.label_each(dict.fromkeys((int(row) for row in rows), label))

    def label_each(self, labels: dict[int, str]) -> tuple[Change, ...]:
        """Give each cell a label of its own, in one step of the history."""
        unknown = set(labels.values()) - set(LABELS)
        if unknown:
            raise InputError(f"'{min(unknown)}' is not one of {', '.join(LABELS)}.")
        at, old = self._clock(), self.labels
        step = tuple(
            Change(row, self.cell_ids[row], old[row], label, self.reader, at)
            for row, label in labels.items()
            if old[row] != label and self.cell_ids[row]
        )
        if step:
            self._apply(step)
            self._history.done.append(step)
            self._history.undone.clear()
        return step

    def undo(self) -> tuple[Change, ...]:
        """Take the last step of the present reader back; return what changed by that."""
        return self._move(self._history.done, self._history.undone)

    def redo(self) -> tuple[Change, ...]:
        """Take the last step that was undone again; return what changed by that."""
        return self._move(self._history.undone, self._history.done)

    @property
    def _history(self) -> "_History":
        return self._histories[self.reader]

    def _move(self, source: list[Step], target: list[Step]) -> Step:
        if not source:
            return ()
        at = self._clock()
        # A step stands on either pile as what leads onward from the present labels, turned round.
        back = tuple(Change(c.row, c.cell_id, c.new, c.old, c.by, at) for c in source.pop())
        target.append(back)
        self._apply(back)
        return back

    def restore(self, changes: Sequence[Change]) -> None:
        """Enter what was said earlier, in its order and beyond the history."""
        reader = self.reader
        for change in changes:
            self.read_as(change.by)
            self._apply((change,))
        self.read_as(reader)

    def carry_on(self, earlier: "Review") -> None:
        """Take over labels and histories of the same cells, whatever their rows were."""
        rows = {cell_id: row for row, cell_id in enumerate(self.cell_ids) if cell_id}
        old = [row for row, cell_id in enumerate(earlier.cell_ids) if cell_id in rows]
        new = [rows[earlier.cell_ids[row]] for row in old]
        reader = self.reader
        for name, said in earlier.readings.items():
            self.read_as(name)
            self.labels[new], self.times[new] = said.label[old], said.at[old]
            history = earlier._histories[name]
            piles = (
                [_of_known(step, rows) for step in pile] for pile in (history.done, history.undone)
            )
            self._histories[name] = _History(*([step for step in pile if step] for pile in piles))
        self.read_as(reader)

    def _apply(self, step: tuple[Change, ...]) -> None:
        for change in step:
            reading = self.readings[change.by]
            reading.label[change.row] = change.new
            reading.at[change.row] = change.at if change.new else ""


def _of_known(step: Step, rows: dict[str, int]) -> Step:
    """Return the part of a step that is about cells whose rows are known."""
    return tuple(replace(c, row=rows[c.cell_id]) for c in step if c.cell_id in rows)


def shuffled(cell_ids: pd.Series, seed: int) -> NDArray[np.uint64]:
    """Rank of each cell in the order that a seed gives: of two cells it does not depend on others."""
    return pd.util.hash_array(cell_ids.to_numpy(object), hash_key=f"{seed:016d}", categorize=False)


def queue(
    cells: pd.DataFrame,
    order: str,
    label: str = "",
    unreviewed: bool = False,
    seed: int | None = None,
) -> NDArray[np.intp]:
    """Rows of the cells to look at, first things first; cells that could not be classified come last.

    Parameters
    ----------
    cells : DataFrame
        See `wbc_napari.tables.cell_table`.
    order : str
        One of `ORDERS`.
    label : str
        Only cells that bear this label now, or that bear none (`NOT_CLASSIFIED`); "" for all.
    unreviewed : bool
        Only cells without a reviewer's label.
    seed : int, optional
        Shuffle them instead: the same seed gives the same order.
    """
    wanted = np.array(cells["status"] != PENDING)
    if label:
        wanted &= current_labels(cells) == (label if label != NOT_CLASSIFIED else "")
    if unreviewed:
        wanted &= reviewed_labels(cells) == ""
    rows = np.flatnonzero(wanted)
    if seed is not None:
        return rows[np.argsort(shuffled(cells["cell_id"], seed)[rows], kind="stable")]
    column, falling = ORDERS[order]
    if not column:
        return rows
    if column == "label":
        place = {name: number for number, name in enumerate(LABELS)}
        labels, confidence = current_labels(cells), cells["confidence"].to_numpy(float)[rows]
        places = np.array([place.get(labels[row], len(place)) for row in rows], np.intp)
        return rows[np.lexsort((confidence, places))]
    values = cells[column].to_numpy(float)[rows]
    return rows[np.argsort(-values if falling else values, kind="stable")]
