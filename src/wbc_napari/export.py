"""Write a review as files: tables and page as a batch run has them, corrections, a picture of the gallery."""

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError, RunError, reason
from wbc_batch.files import write_file
from wbc_batch.paths import resolved
from wbc_batch.records import now, peek_json, write_json
from wbc_batch.schema import (
    BOX_COLUMNS,
    OPTIONAL_TYPES,
    PLACE_TYPES,
    RECORD_FILE,
    REVIEW_COLUMNS,
    SHARDS,
    STATUS_ERROR,
    STATUS_OK,
)
from wbc_napari.crops import Crops, ListedCrops
from wbc_napari.pictures import gallery_picture
from wbc_napari.tables import PENDING, reviewed_labels
from wbc_napari.torchvision_loader import load_torchvision

if TYPE_CHECKING:
    import pyarrow as pa

    from wbc_batch.report import Profile, ReportOptions

__all__ = ["Export", "save_corrections", "write_export"]

#: Of an export: a folder of crops as files called by their ids; the reviewed cells.
_CROPS, _CORRECTIONS = "crops", "corrections.csv"

_A_CROP = re.compile(r"[0-9a-f]{16}\.png")


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
    profile : Profile or None
        Reference ranges of the page.
    """

    folder: Path
    cells: pd.DataFrame
    crops: Crops
    model: dict[str, Any]
    profile: "Profile | None" = None


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
    import pyarrow as pa

    from wbc_batch.report.tables import guard_text

    said = cells[reviewed_labels(cells) != ""]
    if not len(said):
        raise RunError("No cell has been reviewed yet; there are no corrections to save.")
    readers = guard_text(pa.array(said["reviewed_by"], pa.string())).to_pylist()
    table = said[["cell_id", *REVIEW_COLUMNS]].assign(reviewed_by=readers)
    try:
        write_file(path, table.to_csv(index=False, lineterminator="\n").encode())
    except OSError as error:
        raise RunError(f"{path}: this file cannot be written ({reason(error)}).") from error
    return len(said)


def write_export(export: Export) -> Generator[int, None, str]:
    """Write a run directory: tables, page, corrections, the crops themselves, a picture of the gallery.

    Crops of layers are saved beside the tables, so that the folder can be opened, reported and reviewed
    again wherever it goes; those of a batch run stay where they are.

    Yields
    ------
    int
        Number of cells written so far.

    Returns
    -------
    str
        A sentence on crops that could not be read, of cells that were classified; "" where there are none.

    Raises
    ------
    RunError
        If the folder cannot be written to, or holds something else.
    """
    load_torchvision()  # the page reads the crops again
    folder, lost = export.folder, dict[int, ImageError]()
    _refuse_strangers(folder)
    try:
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        cells, rows = _known_cells(export.cells)
        listed = isinstance(export.crops, ListedCrops)
        if not listed:
            yield from _save_crops(export.crops, rows, cells["cell_id"].tolist(), folder, lost)
            cells = cells.assign(
                source=_CROPS, member=[f"{name}.png" for name in cells["cell_id"]], index=np.nan
            )
        base = export.crops.base if isinstance(export.crops, ListedCrops) else folder
        own = base is not None and resolved(base) == resolved(folder)
        # Also of an export that was opened from there.
        saved = own and bool((cells["source"] == _CROPS).all())
        _remove_earlier(folder, cells, base or Path.cwd())
        _write_tables(export, cells, saved)
        picture = gallery_picture(cells, export.crops, rows, lost)
        _, png = cv2.imencode(".png", picture[..., ::-1])
        write_file(folder / "gallery.png", png.tobytes())
    except OSError as error:
        raise RunError(
            f"{folder}: the results cannot be written there ({reason(error)})."
        ) from error
    yield len(cells)
    return _about_lost(export, cells, lost)


def _about_lost(export: Export, cells: pd.DataFrame, lost: Mapping[int, ImageError]) -> str:
    """Say that crops were lost since they were classified; those that never were have a row that says why."""
    rows = sorted(row for row in lost if cells["status"].iloc[row] == STATUS_OK)
    if not rows:
        return ""
    sources = export.crops.sources
    place = sources[0] if len(sources) == 1 else "every source of these cells"
    return (
        f"The results were written to {export.folder}, but {len(rows)} crops could not be read, so pictures "
        f"are missing; the first is of {cells['cell_id'].iloc[rows[0]]}: {lost[rows[0]]}. "
        f"Make sure that {place} can be read, and export again."
    )


def _known_cells(cells: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Return the cells of which model or reviewer said something, and their rows.

    Those that a reviewer labelled, and no model yet, are what a batch run calls errors.
    """
    pending = (cells["status"] == PENDING).to_numpy()
    rows = np.flatnonzero(~pending | (reviewed_labels(cells) != ""))
    known, new = cells.iloc[rows].reset_index(drop=True), pending[rows]
    known.loc[new, ["status", "error"]] = [STATUS_ERROR, "not classified"]
    return known, rows


def _refuse_strangers(folder: Path) -> None:
    """Let only an empty folder, or an earlier export, be written to: never a run of wbc-batch."""
    exported = peek_json(folder / RECORD_FILE).get("command") == "napari"
    if folder.is_dir() and any(folder.iterdir()) and not exported:
        raise RunError(
            f"{folder} holds something other than an earlier export; choose an empty folder, or an earlier "
            "export, for the results."
        )


def _save_crops(
    crops: Crops, rows: Any, names: list[str], folder: Path, lost: dict[int, ImageError]
) -> Iterator[int]:
    (folder / _CROPS).mkdir(exist_ok=True)
    done = 0
    for batch in crops.batches(rows):
        for image in crops.read(batch):
            try:
                if isinstance(image, ImageError):
                    raise image
                _, png = cv2.imencode(".png", as_rgb(image)[..., ::-1])
                (folder / _CROPS / f"{names[done]}.png").write_bytes(png.tobytes())
            except ImageError as error:
                lost[done] = error
            done += 1
        yield done


def _remove_earlier(folder: Path, cells: pd.DataFrame, base: Path) -> None:
    """Remove what an earlier export left and this one lacks: its crops would be taken for this one's."""
    places = {source: resolved(base / source) for source in cells["source"].unique()}
    kept = {places[s] / member for s, member in zip(cells["source"], cells["member"], strict=True)}
    for path in resolved(folder / _CROPS).glob("*.png"):
        if _A_CROP.fullmatch(path.name) and path not in kept:
            path.unlink()
    if not (reviewed_labels(cells) != "").any():
        (folder / _CORRECTIONS).unlink(missing_ok=True)


def _write_tables(export: Export, cells: pd.DataFrame, saved: bool) -> None:
    """Write what ``wbc-batch`` writes of a run: record, shard, reports; the review is merged as it does."""
    from wbc_batch.ledger import CELL_SCHEMA
    from wbc_batch.report import ReportOptions, read_review, write_reports

    folder, review = export.folder, None
    if (reviewed_labels(cells) != "").any():
        save_corrections(cells, folder / _CORRECTIONS)
        review = read_review(folder / _CORRECTIONS)
    options = ReportOptions(profile=export.profile, review=review)
    _write_record(export, len(cells), options, saved)
    boxed = set(BOX_COLUMNS) <= set(cells.columns)
    more = {
        name: kind
        for name, kind in (PLACE_TYPES | OPTIONAL_TYPES).items()
        if name in cells and (boxed or name not in BOX_COLUMNS)
    }
    shard = _write_shard(export, cells, _with_fields(CELL_SCHEMA, more))
    write_reports(folder, [shard], options=options)


def _write_record(export: Export, count: int, options: "ReportOptions", saved: bool) -> None:
    from wbc_batch import __version__

    base = export.crops.base if isinstance(export.crops, ListedCrops) else None
    about_run = ("device", "rejection")
    record = {
        "state": "finished",
        "command": "napari",
        "directory": str(resolved(export.folder) if saved else base or Path.cwd()),
        "cells": count,
        "saved_crops": saved,
        "model": {key: value for key, value in export.model.items() if key not in about_run},
        "device": export.model.get("device"),
        "report": options.to_record(),
        "versions": {"wbc-napari": __version__},
        "started": None,
        "finished": now(),
    }
    write_json(export.folder / RECORD_FILE, record)


def _write_shard(export: Export, cells: pd.DataFrame, schema: "pa.Schema") -> Path:
    """Write what the model said as the one shard of the run, and the note that makes it count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wbc_batch.ledger import EXPORTED, ShardResult, commit

    sink = pa.BufferOutputStream()
    pq.write_table(_arrow(cells, schema), sink)
    rows = sink.getvalue().to_pybytes()
    classified = cells[cells["status"] == STATUS_OK]
    result = ShardResult(
        shard_id=EXPORTED,
        number=0,
        file=f"{EXPORTED}.parquet",
        size=len(rows),
        cells=len(cells),
        errors=len(cells) - len(classified),
        labels={str(label): n for label, n in classified["label"].value_counts().items()},
        device=str(export.model.get("device")),
        precision="not recorded",
        backend="not recorded",
        seconds=0.0,
    )
    commit(export.folder / SHARDS, result, rows)
    return export.folder / SHARDS / result.file


def _with_fields(schema: "pa.Schema", more: Mapping[str, str]) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([*schema, *((name, pa.type_for_alias(kind)) for name, kind in more.items())])


def _arrow(cells: pd.DataFrame, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    text = [field.name for field in schema if pa.types.is_string(field.type)]
    rows = cells[schema.names].astype(dict.fromkeys(text, object))
    rows[text] = rows[text].where(rows[text].notna() & (rows[text] != ""), None)
    return pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
