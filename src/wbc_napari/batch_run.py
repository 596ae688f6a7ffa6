"""A batch run, or its ``cells.csv``, opened for review: a stack of its crops and the cells on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from wbc_batch.errors import ImageError, InputError, RunError
from wbc_batch.records import peek_json
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELL_COLUMNS,
    CELL_TYPES,
    CELLS_FILE,
    GIVEN_LABEL_COLUMN,
    OPTIONAL_TYPES,
    PLACE_TYPES,
    RECORD_FILE,
    REVIEW_COLUMNS,
    SHARDS,
    STATUS_OK,
)
from wbc_batch.sources import cell_of, list_cells
from wbc_napari.appearance import colours, text_of
from wbc_napari.crop_array import CropArray
from wbc_napari.crops import ListedCrops
from wbc_napari.marks import MARK, LayerData, Mark

__all__ = [
    "BatchRun",
    "is_run",
    "listed_crops",
    "listed_points",
    "lost_crops",
    "open_run",
    "packed_layer",
    "run_layers",
]

_INTEGERS = ("index", *BOX_COLUMNS)
_FRACTIONS = tuple(name for name, kind in CELL_TYPES.items() if kind.startswith("float"))


@dataclass(frozen=True, eq=False)
class BatchRun:
    """What a run says of its cells.

    Attributes
    ----------
    path : Path
        The run directory, or a ``cells.csv`` of its own.
    cells : DataFrame
        The columns of `wbc_batch.schema.CELL_COLUMNS` and `REVIEW_COLUMNS`; those of
        `wbc_batch.schema.PLACE_TYPES` where cells were packed.
    model : dict
        Name, SHA-256, device and preprocessing, as far as they are recorded.
    base : Path or None
        The folder that relative sources start from.
    """

    path: Path
    cells: pd.DataFrame
    model: dict[str, Any]
    base: Path | None

    @property
    def name(self) -> str:
        """Name of the run: its folder's."""
        return (self.path if self.path.is_dir() else self.path.parent).resolve().name


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, or a table of cells such as a run leaves."""
    table = path / CELLS_FILE if path.is_dir() else path
    if table.suffix.lower() != ".csv" or not table.is_file():
        return False
    try:
        with table.open(encoding="utf-8", errors="replace") as file:
            head = {name.strip().strip('"') for name in file.readline().split(",")}
    except OSError:
        return False
    return set(CELL_COLUMNS) <= head


def open_run(path: Path) -> BatchRun:
    """Read the table of a run; no crop is opened.

    Labels may be in upper or lower case: the table may have been edited.

    Raises
    ------
    RunError
        If the table cannot be read.
    InputError
        If a value in it cannot be used, with its column and row named.
    """
    from wbc_batch.report.provenance import base_of
    from wbc_batch.report.review import known_labels
    from wbc_batch.report.tables import unguard_text

    table = path / CELLS_FILE if path.is_dir() else path
    text = [name for name, kind in CELL_TYPES.items() if kind == "string"] + list(REVIEW_COLUMNS)
    text.append(GIVEN_LABEL_COLUMN)
    try:
        cells = pd.read_csv(
            table, dtype=dict.fromkeys(text, object), keep_default_na=False, na_values=[""]
        )
        cells[list(CELL_COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{table}: this table of cells cannot be read ({error}).") from error
    if not len(cells):
        raise RunError(f"{table} holds no cells.")
    for name in REVIEW_COLUMNS:
        if name not in cells:
            cells[name] = ""
    text = [name for name in text if name in cells]
    cells[text] = cells[text].fillna("")
    for name in (*_INTEGERS, *_FRACTIONS):
        if name in cells:
            cells[name] = _numbers(table, cells[name], whole=name in _INTEGERS)
    for name in ("label", "reviewed_label"):
        cells[name] = known_labels(table, _by_row(cells[name])).to_numpy()
    cells["reviewed_by"] = cells["reviewed_by"].str.strip()  # blank: nobody said who it was
    guarded = ("source", "member", "group", "error", "reviewed_by", GIVEN_LABEL_COLUMN)
    for name in [name for name in guarded if name in cells]:
        risky = cells[name].str.startswith("'")
        cells.loc[risky, name] = cells.loc[risky, name].map(unguard_text)
    cells = _with_places(cells, table.parent / SHARDS)
    record = peek_json(table.parent / RECORD_FILE)
    model = {"name": "not recorded", "sha256": "", "device": record.get("device") or "not recorded"}
    model |= record.get("model") or {}
    return BatchRun(path, cells, model, base_of(record, table.parent))


def _numbers(table: Path, column: pd.Series, whole: bool) -> pd.Series:
    """Return a column as numbers, NaN where it is empty.

    Raises
    ------
    InputError
        If there is anything else in it.
    """
    from wbc_batch.report.lists import name_rows

    plain = column.dtype.kind in "iuf"  # else pandas has met a value that is no number
    numbers = column if plain else pd.to_numeric(column.astype(str), errors="coerce")
    fine = np.isfinite(numbers) & (numbers % 1 == 0) if whole else numbers.notna()
    wrong = _by_row(column)[(~fine & column.notna()).to_numpy()].astype(str)
    if len(wrong):
        raise InputError(
            f"{table} has values in the column {column.name} that are not {'whole ' if whole else ''}"
            f"numbers: {name_rows(wrong.index, wrong)}; correct them, or open the table that the run wrote"
        )
    return numbers


def _by_row(column: pd.Series) -> pd.Series:
    """Index a column by row, as spreadsheets count: the header is row 1."""
    return column.set_axis(range(2, len(column) + 2))


def _with_places(cells: pd.DataFrame, shards: Path) -> pd.DataFrame:
    """Add where the pixels of packed cells lie: the shards of a run know it, its table does not."""
    from wbc_batch.report.tables import iter_cells, shard_schema

    files = sorted(shards.glob("*.parquet"))
    if "store" not in shard_schema(files).names:
        return cells
    schema = pa.schema([("cell_id", pa.string())])
    for name, kind in PLACE_TYPES.items():
        schema = schema.append(pa.field(name, pa.type_for_alias(kind)))
    known = pa.concat_tables(iter_cells(files, schema)).to_pandas().drop_duplicates("cell_id")
    places = known.set_index("cell_id").reindex(cells["cell_id"])
    return cells.assign(**{name: places[name].to_numpy() for name in PLACE_TYPES})


def listed_crops(name: str, cells: pd.DataFrame, base: Path | None) -> ListedCrops:
    """Return the crops that the rows of a table stand for."""
    more = (name for name in (*OPTIONAL_TYPES, *PLACE_TYPES) if name in cells)
    columns = ["source", "member", "index", "group", *more]
    rows = zip(*(cells[key].tolist() for key in columns), strict=True)
    listed = [cell_of(dict(zip(columns, row, strict=True))) for row in rows]
    return ListedCrops(name, listed, base, cells["cell_id"].tolist())


def run_layers(run: BatchRun) -> list[LayerData]:
    """Describe the two layers of a run: its crops as a stack, read when looked at, and its cells."""
    crops = listed_crops(run.name, run.cells, run.base)
    array, attributes, kind = _image(crops, run.path, run.base)
    origin = attributes["metadata"][MARK]
    return [(array, attributes, kind), listed_points(array, origin, run.cells, run.model)]


def lost_crops(run: BatchRun) -> str:
    """Say that the crops of a run cannot be read, judged by its first ones; "" if they can."""
    fine = run.cells[run.cells["status"] == STATUS_OK].head(3)
    crops = listed_crops(run.name, fine, run.base)
    found = list(crops.read(range(len(fine))))
    if not found or not all(isinstance(image, ImageError) for image in found):
        return ""
    return (
        f"The crops of '{run.name}' cannot be read and are shown blank: {found[0]}. "
        f"The run found them in {crops.sources[0]}; put them back there and open the run again."
    )


def packed_layer(path: Path) -> LayerData:
    """Describe a packed store as a stack of its crops, each in its own size.

    Raises
    ------
    InputError
        If the store is damaged.
    """
    cells = list(list_cells([path.resolve()]))
    return _image(ListedCrops(path.name.removesuffix(".zarr"), cells), path, None)


def _image(crops: ListedCrops, path: Path, base: Path | None) -> LayerData:
    mark: Mark = {"run": str(path.resolve()), "base": str(base or "")}
    attributes = {
        "name": crops.name,
        "rgb": True,
        "axis_labels": ("cell", "y", "x"),
        "metadata": {MARK: mark},
    }
    return CropArray(crops), attributes, "image"


def listed_points(
    array: CropArray, origin: Mark, cells: pd.DataFrame, model: dict[str, Any]
) -> LayerData:
    """Describe the Points layer of listed cells: a frame around each crop of their stack.

    Parameters
    ----------
    array : CropArray
    origin : Mark
        Of the stack's layer: where its cells come from.
    cells : DataFrame
        See `wbc_napari.tables.cell_table`.
    model : dict
        See `wbc_napari.appearance.points_layer`.
    """
    places = np.full((len(array), 3), (array.side - 1) / 2)
    places[:, 0] = np.arange(len(array))
    mark: Mark = {**origin, "model": model}
    attributes = {
        "name": f"{array.crops.name} cells",
        "features": cells,
        "symbol": "square",
        "size": 0.98 * array.side,
        "face_color": "transparent",
        "border_color": colours(cells),
        "border_width": 0.012,
        "text": text_of(cells, 0.98 * array.side, 3),
        "axis_labels": ("cell", "y", "x"),
        "metadata": {MARK: mark},
    }
    return places, attributes, "points"
