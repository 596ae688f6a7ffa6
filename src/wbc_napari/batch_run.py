"""A batch run, or its ``cells.csv``, opened for review: a stack of its crops and the cells on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError, RunError
from wbc_batch.schema import BOX_COLUMNS, CELL_COLUMNS, CELL_TYPES, PLACE_TYPES, RECORD_FILE
from wbc_batch.sources import cell_of
from wbc_napari.appearance import MARK, LayerData, colours, text_of
from wbc_napari.crops import ListedCrops
from wbc_napari.tables import REVIEW_COLUMNS

__all__ = ["BatchRun", "CropArray", "is_run", "listed_crops", "open_run", "run_layers"]

#: Crops are shown in squares of this many pixels at most; smaller ones as they are.
_MAX_SIDE = 400
_PAPER = 235


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


class CropArray:
    """The crops of a run as an array (N, S, S, 3) that reads one when it is looked at.

    Crops of other sizes are shrunk to fit and laid on paper colour; one that cannot be read is blank.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, crops: ListedCrops) -> None:
        self.crops = crops
        self.side = self._first_side()
        self.shape = (len(crops), self.side, self.side, 3)

    def _first_side(self) -> int:
        for image in self.crops.read(range(min(len(self.crops), 3))):
            if not isinstance(image, ImageError):
                return min(max(image.shape[:2]), _MAX_SIDE)
        return 128

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        numbers = np.arange(len(self))[key[0]]
        shown = np.stack([self._square(int(number)) for number in np.atleast_1d(numbers)])
        shown = shown if np.ndim(numbers) else shown[0]
        rest = key[1:]
        return shown[(slice(None), *rest)] if np.ndim(numbers) else shown[rest]

    def _square(self, number: int) -> NDArray[np.uint8]:
        paper = np.full((self.side, self.side, 3), _PAPER, np.uint8)
        image = next(iter(self.crops.read([number])))
        if isinstance(image, ImageError):
            return paper
        image = as_rgb(image)
        zoom = min(self.side / max(image.shape[:2]), 1.0)
        if zoom < 1.0:
            image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        height, width = (min(side, self.side) for side in image.shape[:2])
        top, left = (self.side - height) // 2, (self.side - width) // 2
        paper[top : top + height, left : left + width] = image[:height, :width]
        return paper


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, or a table of cells such as a run leaves."""
    table = path / "cells.csv" if path.is_dir() else path
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

    Raises
    ------
    RunError
        If the table cannot be read.
    """
    from wbc_batch.report.tables import unguard_text

    table = path / "cells.csv" if path.is_dir() else path
    text = [name for name, kind in CELL_TYPES.items() if kind == "string"] + list(REVIEW_COLUMNS)
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
    cells[text] = cells[text].fillna("")
    for name in ("source", "member", "group", "error", "reviewed_by"):
        risky = cells[name].str.startswith("'")
        cells.loc[risky, name] = cells.loc[risky, name].map(unguard_text)
    cells = _with_places(cells, table.parent / "shards")
    record = _record(table.parent)
    model = {"name": "not recorded", "sha256": "", "device": record.get("device") or "not recorded"}
    model |= record.get("model") or {}
    base = record.get("directory")
    return BatchRun(path, cells, model, Path(base) if isinstance(base, str) else None)


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


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def listed_crops(name: str, cells: pd.DataFrame, base: Path | None) -> ListedCrops:
    """Return the crops that the rows of a table stand for."""
    more = (name for name in (*BOX_COLUMNS, *PLACE_TYPES) if name in cells)
    columns = ["source", "member", "index", "group", *more]
    rows = zip(*(cells[key].tolist() for key in columns), strict=True)
    listed = [cell_of(dict(zip(columns, row, strict=True))) for row in rows]
    return ListedCrops(name, listed, base)


def run_layers(run: BatchRun) -> list[LayerData]:
    """Describe the two layers of a run: its crops as a stack, read when looked at, and its cells."""
    array = CropArray(listed_crops(run.name, run.cells, run.base))
    middle = (array.side - 1) / 2
    places = np.full((len(array), 3), middle)
    places[:, 0] = np.arange(len(array))
    origin = {"run": str(run.path.resolve()), "base": str(run.base or "")}
    image = {
        "name": run.name,
        "rgb": True,
        "axis_labels": ("cell", "y", "x"),
        "metadata": {MARK: origin},
    }
    points = {
        "name": f"{run.name} cells",
        "features": run.cells,
        "symbol": "square",
        "size": 0.98 * array.side,
        "face_color": "transparent",
        "border_color": colours(run.cells),
        "border_width": 0.012,
        "text": text_of(run.cells, 0.98 * array.side, 3),
        "axis_labels": ("cell", "y", "x"),
        "metadata": {MARK: {**origin, "model": run.model}},
    }
    return [(array, image, "image"), (places, points, "points")]
