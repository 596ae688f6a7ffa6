"""The identity of a cell, and where its pixels lie."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from wbc_batch.names import name_bytes
from wbc_batch.schema import BOX_COLUMNS, GIVEN_LABEL_COLUMN

__all__ = ["Box", "Cell", "Place", "cell_of", "path_of"]

#: What is read around a box, on each side, in parts of its longer side.
_ROOM = 0.15


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a larger image: pixels from its top left corner, and pixels in width and height."""

    x: int
    y: int
    width: int
    height: int

    def __reduce__(self) -> tuple[type, tuple]:
        return Box, (self.x, self.y, self.width, self.height)

    def with_room(self) -> "Box":
        """Return the part of the image that is read for the cell in this box.

        Boxes lie close around cells. Crops that a model learns from have the surroundings in them, and the
        white point is taken from there: `docs/model.md` has what it is good for, and how much of it.
        """
        room = round(_ROOM * max(self.width, self.height))
        return Box(self.x - room, self.y - room, self.width + 2 * room, self.height + 2 * room)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pixels of a cell lie, where its identity does not say so, or not quickly.

    Attributes
    ----------
    store : str
        The container, as `Cell.source` names one.
    position : int
        Inside it: a row of an array, an offset in an archive.
    unit : int
        Cells of one `store` and `unit` are read together, so they should stay in one shard.
    """

    store: str
    position: int
    unit: int

    def __reduce__(self) -> tuple[type, tuple]:
        return Place, (self.store, self.position, self.unit)


@dataclass(frozen=True, slots=True)
class Cell:
    """One crop that was listed.

    Attributes
    ----------
    source : str
        The input as the user gave it, with forward slashes.
    member : str
        Path of the crop, or of the image that it is a part of, inside `source`, with forward slashes;
        empty if `source` is the crop, or an array or stack of crops.
    index : int or None
        Position inside a stack, or row of a table, from 0; None for a crop that is a file.
    group : str
        What the cell is counted with.
    box : Box or None
        The part of the image that the cell fills, which is read with room around it
        (`Box.with_room`); None if the whole image is the crop.
    given_label : str
        What a table said that the cell is; empty if it did not. Nothing is decided by it.
    place : Place or None
        Where the pixels are. None: where `source`, `member` and `index` say.
    """

    source: str
    member: str
    index: int | None
    group: str
    box: Box | None = None
    given_label: str = ""
    place: Place | None = None

    def __reduce__(self) -> tuple[type, tuple]:
        # Thousands go to a worker at once: half as long as by the state of a dataclass.
        identity = self.source, self.member, self.index
        return Cell, (*identity, self.group, self.box, self.given_label, self.place)

    @property
    def store(self) -> str:
        """What has to be opened to read the cell: a path or a URL."""
        return self.source if self.place is None else self.place.store

    @property
    def cell_id(self) -> str:
        """16 hexadecimal digits that depend on `source`, `member` and `index` alone."""
        index = "" if self.index is None else str(self.index)
        identity = "\0".join((self.source, self.member, index))  # NUL cannot occur in a path
        return blake2b(name_bytes(identity), digest_size=8).hexdigest()


def cell_of(row: Mapping[Hashable, Any]) -> Cell:
    """Return the cell that a row of ``cells.csv`` or of a shard stands for.

    Parameters
    ----------
    row : mapping
        From columns to values, where missing ones are None or NaN: ``source``, ``member``, ``index``,
        ``group`` and, if the run has them, `wbc_batch.schema.OPTIONAL_TYPES`, ``store`` and ``position``.
    """
    index = _present(row, "index")
    sides = [_present(row, name) for name in BOX_COLUMNS]
    store = _present(row, "store")
    return Cell(
        row["source"],
        _present(row, "member") or "",
        None if index is None else int(index),
        row["group"],
        box=None if None in sides else Box(*map(int, sides)),
        given_label=_present(row, GIVEN_LABEL_COLUMN) or "",
        place=None if store is None else Place(store, int(row["position"]), unit=0),
    )


def path_of(source: str, member: str) -> str:
    """Write source and member of a cell, of which one may be empty, as one path."""
    return "/".join(filter(None, (source, member)))


def _present(row: Mapping[Hashable, Any], name: str) -> Any:
    value = row.get(name)
    return None if value is None or value != value else value  # NaN is not itself
