"""Two runs of the same cells, by the same model or by two: how far they agree, and what changed."""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa

from wbc_batch.errors import InputError
from wbc_batch.files import replacing
from wbc_batch.pages import environment
from wbc_batch.report.agreement import Agreement, agreement
from wbc_batch.report.differential import differential
from wbc_batch.report.gallery import make_plates
from wbc_batch.report.provenance import Provenance, read_provenance
from wbc_batch.report.tables import csv_file, iter_cells
from wbc_batch.schema import COMPARISON_PAGE, LABELS, STATUS_OK

__all__ = [
    "COMPARISON_FILES",
    "ComparedRun",
    "Comparison",
    "compare_cells",
    "write_comparison",
]

COMPARISON_FILES = (COMPARISON_PAGE, "agreement.csv", "changed.csv")

#: Cells that changed, on the page; ``changed.csv`` holds all.
MAX_PLATES = 200
_PICTURE_BYTES = 6_000_000

_IDENTITY = ("cell_id", "source", "member", "index", "group")
_COMPARED = ("status", "label", "predicted", "confidence")
_SCHEMA = pa.schema(
    [
        *((name, pa.int64() if name == "index" else pa.string()) for name in _IDENTITY),
        ("label_a", pa.string()),
        ("confidence_a", pa.float64()),
        ("label_b", pa.string()),
        ("confidence_b", pa.float64()),
    ]
)
_READ = pa.schema(
    [
        *((name, pa.int64() if name == "index" else pa.string()) for name in _IDENTITY),
        *((name, pa.float32() if name == "confidence" else pa.string()) for name in _COMPARED),
    ]
)


@dataclass(frozen=True)
class ComparedRun:
    """One of the two runs.

    Attributes
    ----------
    name : str
        What to call it.
    model, sha256 : str
    provenance : Provenance
    cells : DataFrame
        All its rows; as many columns as a comparison needs.
    """

    name: str
    model: str
    sha256: str
    provenance: Provenance
    cells: pd.DataFrame

    @classmethod
    def of(
        cls, name: str, run_dir: Path, record: Mapping[str, Any], shard_files: Sequence[Path]
    ) -> "ComparedRun":
        """Read a run."""
        model = record.get("model") or {}
        rows = pa.concat_tables([_READ.empty_table(), *iter_cells(shard_files, _READ)])
        return cls(
            name=name,
            model=str(model.get("name", "")),
            sha256=str(model.get("sha256", "")),
            provenance=read_provenance(run_dir),
            cells=rows.to_pandas(),
        )


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes
    ----------
    first, second : ComparedRun
    common : DataFrame
        The cells of both runs, with the columns of the first and, with the suffix ``_b``, the second.
    only_first, only_second : int
        Cells that the other run does not have.
    agreement : Agreement
        Labels of the first run in rows, of the second in columns.
    """

    first: ComparedRun
    second: ComparedRun
    common: pd.DataFrame
    only_first: int
    only_second: int
    agreement: Agreement

    @property
    def changed(self) -> pd.DataFrame:
        """The cells whose label changed, those first that the two runs are surest of.

        Last are those that one of them could not classify.
        """
        labels = [self.common[name].fillna("") for name in ("label", "label_b")]
        changed = self.common[labels[0] != labels[1]]
        sure = changed[["confidence", "confidence_b"]].min(axis=1, skipna=False)
        return changed.loc[
            sure.sort_values(ascending=False, kind="stable", na_position="last").index
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        kappa = self.agreement.kappa
        return {
            "runs": [self.first.name, self.second.name],
            "models": [self.first.model, self.second.model],
            "cells": len(self.common),
            "only_in": [self.only_first, self.only_second],
            "compared": self.agreement.cells,
            "agreeing": self.agreement.agreeing,
            "kappa": None if math.isnan(kappa) else kappa,
            "changed": len(self.changed),
            "labels": list(LABELS),
            "table": self.agreement.table.tolist(),
        }


def compare_cells(first: ComparedRun, second: ComparedRun) -> Comparison:
    """Find the cells of two runs that are the same, and compare their labels.

    Cells are the same by their ``cell_id``; where two runs named the same input differently (``cells`` and
    ``./cells``), by the input's place, or else by as many of the last parts of its name as tell the cells of
    each run apart (``slide-1/cells``), the member and the index.

    Raises
    ------
    InputError
        If there are none, or a run holds a cell twice.
    """
    one, two = first.cells, second.cells
    keys = _keys(first, second)
    for run, key in zip((first, second), keys, strict=True):
        if not key.is_unique:  # as earlier versions took paths that were named twice
            raise InputError(f"the run {run.name} holds a cell twice; classify its input again")
    right = two.assign(key=keys[1])[["key", *_COMPARED]]
    common = one.assign(key=keys[0]).merge(right, on="key", suffixes=("", "_b"))
    if common.empty:
        raise InputError(
            f"the runs {first.name} and {second.name} have no cell in common; compare runs on the same input"
        )
    fine = common[(common["status"] == STATUS_OK) & (common["status_b"] == STATUS_OK)]
    return Comparison(
        first=first,
        second=second,
        common=common.drop(columns="key"),
        only_first=len(one) - len(common),
        only_second=len(two) - len(common),
        agreement=agreement(fine["label"], fine["label_b"]),
    )


def write_comparison(output: Path, comparison: Comparison) -> None:
    """Write `COMPARISON_FILES` into a folder."""
    schema = pa.schema([("label", pa.string()), *((name, pa.int64()) for name in LABELS)])
    table = comparison.agreement.table
    columns = {name: table[:, k] for k, name in enumerate(LABELS)}
    with csv_file(output / "agreement.csv", schema) as append:
        append(pa.table({"label": list(LABELS), **columns}, schema=schema))
    changed = comparison.changed.rename(columns={"label": "label_a", "confidence": "confidence_a"})
    with csv_file(output / "changed.csv", _SCHEMA) as append:
        rows = changed[_SCHEMA.names].astype({"index": "Int64"})
        append(pa.Table.from_pandas(rows, schema=_SCHEMA, preserve_index=False))
    with replacing(output / COMPARISON_PAGE) as file:
        # Names of runs and cells need not be UTF-8.
        file.write(_page(comparison).encode("utf-8", "backslashreplace"))


def _keys(first: ComparedRun, second: ComparedRun) -> tuple[pd.Series, pd.Series]:
    """Name the cells of both runs such that a cell of both has one name, and each name one cell."""
    keys = first.cells["cell_id"], second.cells["cell_id"]
    if keys[0].isin(keys[1]).any():
        return keys
    sources = _places(first), _places(second)
    longest = max(len(parts) for of_run in sources for parts in of_run.unique())
    for depth in (longest, *range(1, longest)):
        keys = _named(first.cells, sources[0], depth), _named(second.cells, sources[1], depth)
        unique = keys[0].is_unique and keys[1].is_unique
        if unique and keys[0].isin(keys[1]).any():
            break
    return keys


def _places(run: ComparedRun) -> pd.Series:
    """Where the source of each cell was when the run began, part by part."""
    base = (run.provenance.base or Path()).as_posix()
    found = {
        source: PurePosixPath(posixpath.normpath(posixpath.join(base, source))).parts
        for source in run.cells["source"].unique()
    }
    return run.cells["source"].map(found)


def _named(cells: pd.DataFrame, places: pd.Series, depth: int) -> pd.Series:
    sources = places.map(lambda parts: "/".join(parts[-depth:]))
    indices = ["" if pd.isna(index) else str(int(index)) for index in cells["index"]]
    return sources + "\n" + cells["member"].fillna("") + "\n" + pd.Series(indices, cells.index)


def _page(comparison: Comparison) -> str:
    changed = comparison.changed
    shown = changed[changed["status"] == STATUS_OK].head(MAX_PLATES)
    provenance = comparison.first.provenance
    plates = make_plates(shown, provenance.canonical, provenance.base, _PICTURE_BYTES)
    rows = shown.head(len(plates)).fillna({"label_b": ""}).to_dict("records")
    return (
        environment("wbc_batch.report")
        .get_template("compare.html.j2")
        .render(
            comparison=comparison,
            table=comparison.agreement.table.tolist(),
            labels=LABELS,
            differentials=list(
                zip(_shares(comparison.common, ""), _shares(comparison.common, "_b"), strict=True)
            ),
            changed=len(changed),
            plates=list(zip(plates, rows, strict=True)),
        )
    )


def _shares(common: pd.DataFrame, suffix: str) -> list[dict[str, Any]]:
    """Differential of the common cells in one of the runs: the classes, then unidentified."""
    cells = common[[f"{name}{suffix}" for name in _COMPARED]].set_axis(list(_COMPARED), axis=1)
    # Columns are text; pandas' types allow any key.
    return differential(cells).head(len(LABELS)).to_dict("records")  # type: ignore[return-value]
