"""Cells in tables: a CSV or Parquet file with a row for each image, or for each box in a larger image."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError, InputError
from wbc_batch.schema import BOX_COLUMNS
from wbc_batch.sources import images
from wbc_batch.sources.cells import Box, Cell, Place
from wbc_batch.sources.fetching import Fetch, LoadedAhead, read_file
from wbc_batch.sources.groups import Grouping, parent_folder
from wbc_batch.sources.inputs import Input
from wbc_batch.sources.kinds import stem

__all__ = ["TableImages", "list_table"]

#: Names of the column of paths; the first one found counts, upper and lower case are alike.
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
GROUP_COLUMN, LABEL_COLUMN = "group", "label"
_PARQUET = (".parquet", ".pq")
_ROWS = 16_384
# A box at the edge may reach over it; one that lies mostly outside is of another image.
_LEAST_INSIDE = 0.5

_Row = Mapping[str, Any]


def list_table(item: Input, grouping: Grouping) -> Iterator[Cell]:
    """List a cell for each row of a table.

    Paths start from the table's own folder. A row's number, from 0, is the cell's index.

    Raises
    ------
    InputError
        If the table cannot be read, has no row, or lacks a column.
    """
    path = Path(item.given)
    names, rows = _read_table(path)
    columns = {name.strip().lower(): name for name in reversed(names)}
    path_column = next((columns[name] for name in PATH_COLUMNS if name in columns), None)
    if path_column is None:
        raise InputError(
            f"the first line of {path} names no column of paths (it has {', '.join(names)[:200]}); "
            "call it 'path'"
        )
    box_columns = [columns[name] for name in BOX_COLUMNS if name in columns]
    if 0 < len(box_columns) < len(BOX_COLUMNS):
        raise InputError(
            f"{path} has only {', '.join(box_columns)} of the columns {', '.join(BOX_COLUMNS)}; "
            "boxes need all of them, crops none"
        )
    group_of = _grouper(path, names, columns, grouping)
    label_column = columns.get(LABEL_COLUMN)
    index = -1
    unit = 0
    before: str | None = None
    for index, row in enumerate(rows):
        member = _text(row, path_column).replace("\\", "/")
        unit += member != before
        before = member
        yield Cell(
            item.source,
            member,
            index,
            group_of(row, member),
            box=_box([row.get(name) for name in box_columns]) if box_columns else None,
            given_label=_text(row, label_column) if label_column else "",
            # Boxes of one image are cut from it together.
            place=Place(item.source, index, unit) if box_columns else None,
        )
    if index < 0:
        raise InputError(f"{path} holds no rows; name a table with a row for each cell")


class TableImages:
    """The images that tables name; any number of threads may fetch them."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._fields: LoadedAhead[str, NDArray[np.uint8]] = LoadedAhead(self._read_field)

    def fetch(self, cells: Iterable[Cell]) -> Iterator[Fetch]:
        """Give a way to the bytes of each image, or to the pixels of each box."""
        for cell in cells:
            path = self._folder / cell.member
            if not cell.member:
                yield _nameless
            elif cell.box is None:
                yield partial(_read_named, path, cell.member)
            else:
                yield partial(_cut, self._fields.get(cell.member), cell.box, cell.member)

    def _read_field(self, member: str) -> NDArray[np.uint8]:
        from wbc_batch.classifier.images import as_rgb

        return as_rgb(images.decode(_read_named(self._folder / member, member)))


def _nameless() -> bytes:
    raise ImageError("this row of the table names no file")


def _read_named(path: Path, member: str) -> bytes:
    try:
        return read_file(path)
    except ImageError as error:
        if path.exists():
            raise
        raise ImageError(
            f"there is no file {member}; paths in a table start from the table's folder"
        ) from error


def _cut(load: Callable[[], NDArray[np.uint8]], box: Box, member: str) -> NDArray[np.uint8]:
    image = load()
    if box.width <= 0 or box.height <= 0:
        raise ImageError("the box of this row is empty, or its columns are no numbers")
    inside = _inside(image, box)
    if inside.size < _LEAST_INSIDE * box.width * box.height * image.shape[2]:
        height, width = image.shape[:2]
        raise ImageError(f"the box lies outside {member}, which has {width} x {height} pixels")
    return _inside(image, box.with_room())


def _inside(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Cut a box out, as far as it lies inside the image."""
    return image[
        max(box.y, 0) : max(box.y + box.height, 0), max(box.x, 0) : max(box.x + box.width, 0)
    ]


def _box(values: list[Any]) -> Box:
    """Round a box to whole pixels; one that cannot be read is empty."""
    try:
        x, y, width, height = (float(value) for value in values)
    except (TypeError, ValueError):
        return Box(0, 0, 0, 0)
    if not all(isfinite(number) and abs(number) < 2**31 for number in (x, y, width, height)):
        return Box(0, 0, 0, 0)
    left, top = round(x), round(y)
    return Box(left, top, round(x + width) - left, round(y + height) - top)


def _grouper(
    path: Path, names: list[str], columns: Mapping[str, str], grouping: Grouping
) -> Callable[[_Row, str], str]:
    """Choose what names the group of a row."""
    column = None
    if grouping.column:
        column = (
            grouping.column if grouping.column in names else columns.get(grouping.column.lower())
        )
        if column is None:
            raise InputError(
                f"--group-by {grouping.column}: {path} has no column of this name; "
                f"it has {', '.join(names)}"
            )
    elif not grouping.rule:
        column = columns.get(GROUP_COLUMN)
    if column is not None:
        return lambda row, _member: _text(row, column)
    own = stem(path.name)
    return lambda _row, member: parent_folder(own, member)


def _text(row: _Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _read_table(path: Path) -> tuple[list[str], Iterator[_Row]]:
    """Names of the columns, and the rows, some thousand at a time."""
    if path.suffix.lower() in _PARQUET:
        return _read_parquet(path)
    return _read_csv(path)


def _read_parquet(path: Path) -> tuple[list[str], Iterator[_Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet table that can be read ({error})") from error

    def rows() -> Iterator[_Row]:
        try:
            for batch in table.iter_batches(_ROWS):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: this table is damaged ({error}); make it anew") from error

    return list(table.schema_arrow.names), rows()


def _read_csv(path: Path) -> tuple[list[str], Iterator[_Row]]:
    # Names of files need not be UTF-8; a spreadsheet puts a mark before the first column.
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            first = file.readline()
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror or error})") from error
    delimiter = max(",;\t", key=first.count)

    def rows() -> Iterator[_Row]:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            try:
                yield from csv.DictReader(file, delimiter=delimiter)
            except csv.Error as error:
                raise InputError(
                    f"{path}: this table is damaged ({error}); make it anew"
                ) from error

    names = next(csv.reader([first], delimiter=delimiter), [])
    if not names:
        raise InputError(f"{path} is empty; its first line must name the columns, such as 'path'")
    return names, rows()
