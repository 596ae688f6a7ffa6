"""Write a review as files: tables and page as a batch run has them, corrections, a picture of the gallery."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError, RunError
from wbc_batch.files import write_file
from wbc_batch.schema import CELL_COLUMNS, CLASS_COLORS, RECORD_FILE
from wbc_napari.appearance import current_labels
from wbc_napari.crops import Crops, ListedCrops
from wbc_napari.decoder import load_decoder
from wbc_napari.tables import PENDING, REVIEW_COLUMNS

__all__ = ["Export", "gallery_picture", "reviewed_cells", "save_corrections", "write_export"]

_THUMB, _COLUMNS, _GAP = 72, 12, 4


@dataclass(frozen=True, eq=False)
class Export:
    """What is to be written.

    Attributes
    ----------
    folder : Path
        Made if it is not there; must not hold another run.
    cells : DataFrame
        A copy of the features of the layer.
    crops : Crops
    model : dict
        See `wbc_napari.runner.Step`.
    """

    folder: Path
    cells: pd.DataFrame
    crops: Crops
    model: dict[str, Any]


def reviewed_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Let the reviewer's labels count where there are any; the columns are those of `cells`."""
    labels = current_labels(cells)
    reviewed = (cells["reviewed_label"].fillna("") != "").to_numpy()
    status = cells["status"].where(~reviewed, "ok")
    return cells.assign(label=labels, status=status)


def save_corrections(cells: pd.DataFrame, path: Path) -> int:
    """Write the reviewed cells as a file for ``wbc-batch report --review``.

    Returns
    -------
    int
        Number of cells in it.

    Raises
    ------
    RunError
        If nothing was reviewed, or the file cannot be written.
    """
    if "reviewed_label" not in cells:
        raise RunError("No cell was reviewed yet; there are no corrections to save.")
    said = cells[cells["reviewed_label"].fillna("") != ""]
    if not len(said):
        raise RunError("No cell was reviewed yet; there are no corrections to save.")
    table = said[["cell_id", *REVIEW_COLUMNS]]
    try:
        write_file(path, table.to_csv(index=False, lineterminator="\n").encode())
    except OSError as error:
        raise RunError(f"{path}: this file cannot be written ({error.strerror}).") from error
    return len(said)


def write_export(export: Export) -> Iterator[int]:
    """Write a run directory: tables, page, corrections, the crops themselves, a picture of the gallery.

    Crops of layers are saved beside the tables, so that the folder can be opened, reported and reviewed
    again wherever it goes; those of a batch run stay where they are.

    Yields
    ------
    int
        Number of cells written so far.

    Raises
    ------
    RunError
        If the folder cannot be written to, or holds something else.
    """
    load_decoder()  # the page reads the crops again
    folder = export.folder
    _refuse_strangers(folder)
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        cells = export.cells[export.cells["status"] != PENDING].reset_index(drop=True)
        rows = np.flatnonzero((export.cells["status"] != PENDING).to_numpy())
        listed = isinstance(export.crops, ListedCrops)
        if not listed:
            yield from _save_crops(export.crops, rows, cells["cell_id"].tolist(), folder)
            cells = cells.assign(
                source="crops", member=[f"{name}.png" for name in cells["cell_id"]], index=np.nan
            )
        base = export.crops.base if isinstance(export.crops, ListedCrops) else folder.resolve()
        _write_record(export, len(cells), base)
        _write_reports(folder, cells)
        if (cells["reviewed_label"].fillna("") != "").any():
            save_corrections(cells, folder / "corrections.csv")
        picture = gallery_picture(cells, export.crops, rows)
        _, png = cv2.imencode(".png", picture[..., ::-1])
        write_file(folder / "gallery.png", png.tobytes())
    except OSError as error:
        raise RunError(
            f"{folder}: the results cannot be written there ({error.strerror})."
        ) from error
    yield len(cells)


def _refuse_strangers(folder: Path) -> None:
    """Let only an empty folder, or an earlier export, be written to: never a run of wbc-batch."""
    if folder.is_dir() and any(folder.iterdir()) and not _exported(folder):
        raise RunError(f"{folder} is not empty; choose or make an empty folder for the results.")


def _exported(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("command") == "napari"


def _save_crops(crops: Crops, rows: Any, names: list[str], folder: Path) -> Iterator[int]:
    (folder / "crops").mkdir(exist_ok=True)
    done = 0
    for batch in crops.batches(rows):
        for image in crops.read(batch):
            if not isinstance(image, ImageError):
                try:
                    _, png = cv2.imencode(".png", as_rgb(image)[..., ::-1])
                    (folder / "crops" / f"{names[done]}.png").write_bytes(png.tobytes())
                except ImageError:  # its row says what is wrong with it
                    pass
            done += 1
        yield done


def _write_record(export: Export, count: int, base: Path | None) -> None:
    from wbc_batch import __version__

    record = {
        "state": "finished",
        "command": "napari",
        "directory": str(base or Path.cwd()),
        "cells": count,
        "model": {
            key: value for key, value in export.model.items() if key not in ("device", "rejection")
        },
        "device": export.model.get("device"),
        "versions": {"wbc-napari": __version__},
        "started": None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_file(export.folder / RECORD_FILE, text.encode())


def _write_reports(folder: Path, cells: pd.DataFrame) -> None:
    """Write the page from the labels as they are after the review; the table keeps both."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wbc_batch.report import write_reports
    from wbc_batch.report.tables import CELL_SCHEMA, csv_file

    shard = folder / "shards" / "napari.parquet"
    pq.write_table(_arrow(reviewed_cells(cells)[list(CELL_COLUMNS)], CELL_SCHEMA), shard)
    write_reports(folder, [shard])
    columns = [pa.field(name, pa.string()) for name in REVIEW_COLUMNS]
    for name in cells.columns:
        if name in ("x", "y", "width", "height"):
            columns.append(pa.field(name, pa.int64()))
    schema = pa.schema([*CELL_SCHEMA, *columns])
    with csv_file(folder / "cells.csv", schema) as append:
        append(_arrow(cells[schema.names], schema))


def _arrow(cells: pd.DataFrame, schema: Any) -> Any:
    import pyarrow as pa

    text = [field.name for field in schema if pa.types.is_string(field.type)]
    rows = cells.astype(dict.fromkeys(text, object))
    rows[text] = rows[text].where(rows[text].notna() & (rows[text] != ""), None)
    return pa.Table.from_pandas(rows, schema=schema, preserve_index=False)


def gallery_picture(cells: pd.DataFrame, crops: Crops, rows: Any, most: int = 36) -> Any:
    """Draw the gallery: per class its cells, the least confident first, up to `most` of each.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.
    """
    labels = current_labels(cells).to_numpy(object)
    confidence = cells["confidence"].to_numpy(float)
    cell = _THUMB + _GAP
    strips = []
    for label, colour in CLASS_COLORS.items():
        found = np.flatnonzero(labels == label)
        if not len(found):
            continue
        found = found[np.argsort(confidence[found], kind="stable")]
        shown = found[:most]
        lines = -(-len(shown) // _COLUMNS)
        strip = np.full((28 + lines * cell, _COLUMNS * cell + _GAP, 3), 255, np.uint8)
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        cv2.rectangle(strip, (_GAP, 8), (_GAP + 12, 20), rgb, -1)
        more = f", the {most} least confident" if len(found) > most else ""
        text = f"{label}: {len(found)} cells{more}"
        cv2.putText(
            strip, text, (24, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA
        )
        for number, image in enumerate(crops.read([int(rows[row]) for row in shown])):
            if not isinstance(image, ImageError):
                top = 28 + number // _COLUMNS * cell
                left = _GAP + number % _COLUMNS * cell
                strip[top : top + _THUMB, left : left + _THUMB] = thumbnail(image, _THUMB)
        strips.append(strip)
    if not strips:
        return np.full((40, _COLUMNS * cell + _GAP, 3), 255, np.uint8)
    return np.vstack(strips)


def thumbnail(image: Any, side: int) -> Any:
    """Fit a crop into a square of uint8 RGB; the rest is paper colour."""
    picture = np.full((side, side, 3), 235, np.uint8)
    try:
        image = as_rgb(image)
    except ImageError:
        return picture
    zoom = side / max(image.shape[:2])
    size = [max(1, round(length * zoom)) for length in image.shape[1::-1]]
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, size, interpolation=way)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture
