"""Cells in tables: a CSV or Parquet file with a row for each image, or for each box in a larger image."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.csv_rows import read_rows, separator
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
# Below it every whole number is a float, too.
_EXACT = 2**53

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Table:
    """A table that is read some thousand rows at a time: `rows` takes the columns that are needed.

    `not_text` has the types of columns that hold something else; `number` understands what is in those of
    numbers.
    """

    names: list[str]
    not_text: Mapping[str, str]
    rows: Callable[[list[str]], Iterator[_Row]]
    number: Callable[[Any], float] = float


def list_table(item: Input, grouping: Grouping) -> Iterator[Cell]:
    """List a cell for each row of a table.

    Paths start from the table's own folder. A row's number, from 0, is the cell's index.

    Raises
    ------
    InputError
        If the table cannot be read, has no row, or lacks a column.
    """
    path = Path(item.given)
    table = _open_table(path)
    columns = {name.strip().lower(): name for name in reversed(table.names)}
    path_column = _path_column(path, table, columns)
    box_columns = [columns[name] for name in BOX_COLUMNS if name in columns]
    if 0 < len(box_columns) < len(BOX_COLUMNS):
        raise InputError(
            f"{path} has only {', '.join(box_columns)} of the columns {', '.join(BOX_COLUMNS)}; "
            "tables of boxes need all of them, tables of crops none"
        )
    grouping = grouping.among(table.names)
    group_column = _group_column(path, table.names, columns, grouping)
    own = stem(path.name)
    label_column = columns.get(LABEL_COLUMN)
    needed = [path_column, *box_columns, *filter(None, (group_column, label_column))]
    index = -1
    unit = 0
    before: str | None = None
    for index, row in enumerate(table.rows(list(dict.fromkeys(needed)))):
        member = _text(row, path_column).replace("\\", "/")
        unit += member != before
        before = member
        cell = Cell(
            item.source,
            member,
            index,
            _text(row, group_column) if group_column else parent_folder(own, member),
            box=_box(table, [row.get(name) for name in box_columns]) if box_columns else None,
            given_label=_text(row, label_column) if label_column else "",
            # Boxes of one image are cut from it together.
            place=Place(item.source, index, unit) if box_columns else None,
        )
        yield grouping.apply(cell)
    if index < 0:
        raise InputError(f"{path} holds no rows; give a table with a row for each cell")


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
    raise ImageError("this row of the table does not name a file")


def _read_named(path: Path, member: str) -> bytes:
    try:
        return read_file(path)
    except ImageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise ImageError(
            f"there is no file {member}; paths in a table are relative to the table's folder"
        ) from error


def _cut(load: Callable[[], NDArray[np.uint8]], box: Box, member: str) -> NDArray[np.uint8]:
    image = load()
    if box.width <= 0 or box.height <= 0:
        raise ImageError("the box of this row is empty, or its columns are not numbers")
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


def _box(table: _Table, values: list[Any]) -> Box:
    """Round a box to whole pixels; one that cannot be read is empty."""
    try:
        x, y, width, height = map(table.number, values)
    except (TypeError, ValueError):
        return Box(0, 0, 0, 0)
    if not all(isfinite(number) and abs(number) < 2**31 for number in (x, y, width, height)):
        return Box(0, 0, 0, 0)
    left, top = round(x), round(y)
    return Box(left, top, round(x + width) - left, round(y + height) - top)


def _path_column(path: Path, table: _Table, columns: Mapping[str, str]) -> str:
    found = [columns[name] for name in PATH_COLUMNS if name in columns]
    if not found:
        raise InputError(
            f"the first line of {path} does not name a column of paths (it has "
            f"{', '.join(table.names)[:200]}); call that column 'path'"
        )
    text = [name for name in found if name not in table.not_text]
    if not text:
        raise InputError(
            f"the column {found[0]} of {path} holds {table.not_text[found[0]][:60]} instead of "
            "paths; save the images as files and list these in a column 'path'"
        )
    return text[0]


def _group_column(
    path: Path, names: list[str], columns: Mapping[str, str], grouping: Grouping
) -> str | None:
    """Choose the column that names the group of a row; None: the folder of its path does."""
    if not grouping.column:
        return None if grouping.rule else columns.get(GROUP_COLUMN)
    if grouping.column in names:
        return grouping.column
    column = columns.get(grouping.column.lower())
    if column is None:
        raise InputError(
            f"--group-by {grouping.column}: {path} has no column of this name; "
            f"it has {', '.join(names)}"
        )
    return column


def _text(row: _Row, column: str) -> str:
    value = row.get(column)
    if value is None or value != value:  # NaN is not itself
        return ""
    # pandas makes decimal numbers of whole ones where one is missing.
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return str(int(value) if whole else value).strip()


def _open_table(path: Path) -> _Table:
    return _open_parquet(path) if path.suffix.lower() in _PARQUET else _open_csv(path)


def _open_parquet(path: Path) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as a Parquet table ({error})") from error

    def rows(columns: list[str]) -> Iterator[_Row]:
        try:
            with path.open("rb") as file, pq.ParquetFile(file) as table:
                for batch in table.iter_batches(_ROWS, columns=columns):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: this table is damaged ({error}); create it again") from error

    not_text = {field.name: str(field.type) for field in schema if not _is_text(field.type)}
    return _Table(list(schema.names), not_text, rows)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _open_csv(path: Path) -> _Table:
    read = partial(read_rows, path, errors="surrogateescape")  # names of files need not be UTF-8
    _, names = next(read(), (0, []))
    if not names:
        raise InputError(f"{path} is empty; its first line must name the columns, such as 'path'")

    def rows(columns: list[str]) -> Iterator[_Row]:
        places = {column: names.index(column) for column in columns}
        for _, row in islice(read(), 1, None):
            yield {column: row[at] for column, at in places.items() if at < len(row)}

    # Where commas stand in numbers, spreadsheets separate cells by semicolons.
    return _Table(names, {}, rows, _with_comma if separator(path) == ";" else float)


def _with_comma(text: str | None) -> float:
    return float(str(text).replace(",", "."))
