"""All the reports of a run, in one pass over its rows."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa

from wbc_batch.files import replacing, try_replacing
from wbc_batch.paths import resolved
from wbc_batch.report import drawings
from wbc_batch.report.agreement import Agreement
from wbc_batch.report.anndata_table import write_anndata
from wbc_batch.report.collect import Collected
from wbc_batch.report.differential import by_group, write_differential
from wbc_batch.report.flags import Flag, group_flags
from wbc_batch.report.gallery import MAX_GROUPS
from wbc_batch.report.geojson import GeoJsonFolder
from wbc_batch.report.groups import Regrouping, label_in
from wbc_batch.report.options import ReportOptions
from wbc_batch.report.page import RunView, render_page
from wbc_batch.report.provenance import Provenance, read_provenance
from wbc_batch.report.ranges import Profile
from wbc_batch.report.review import Review, merge_review
from wbc_batch.report.tables import (
    ERROR_SCHEMA,
    csv_file,
    iter_cells,
    parquet_file,
    select_errors,
    shard_schema,
    with_prediction_sets,
)
from wbc_batch.report.throughput import ShardPace, read_paces
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELLS_FILE,
    CLASSES,
    DIFFERENTIAL_FILE,
    GEOJSON,
    GIVEN_LABEL_COLUMN,
    LABELS,
    PAGE,
    PLACE_TYPES,
    PLOTS,
    REPORT_FILES,
    REVIEW_COLUMNS,
    REVIEWED_FILE,
    SET_COLUMN,
)

__all__ = ["write_reports"]

_NOT_ALWAYS = (REVIEWED_FILE, "differential-reviewed.parquet", "confusion.csv", "cells.h5ad")

_GROUP_SCHEMA = pa.schema([("group", pa.string())])
_FLAG_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("group", "label", "flag", "side", "detail")]
)


def write_reports(
    run_dir: Path,
    shard_files: Sequence[Path],
    set_thresholds: Sequence[float] | None = None,
    options: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    output: Path | None = None,
) -> None:
    """Write tables, drawings and the page of a run (`wbc_batch.schema.REPORT_FILES`).

    The rows are read once, some ten thousand at a time; memory grows by 4 to 16 bytes per cell (see
    `wbc_batch.report.differential.Tally`). Each file appears under its name when it is complete and
    replaces an older one.

    Parameters
    ----------
    run_dir : Path
        The run directory; ``run.json`` in it tells the page how the run was made.
    shard_files : sequence of Path
        The Parquet files of the run, in the order of its cells.
    set_thresholds : sequence of float, optional
        One per class; adds the column of prediction sets to the cells, see `with_prediction_sets`.
    options : ReportOptions
    output : Path, optional
        Where to write. Default: into the run directory.

    Raises
    ------
    RunError
        If a shard cannot be read or a report cannot be written.
    InputError
        If the options do not fit the run: groups or cells that it does not have. Nothing is written then.
    """
    output = output or run_dir
    try_replacing(output / name for name in REPORT_FILES)  # all of them or none
    provenance = read_provenance(run_dir)
    collected, counts = _write_cells(output, shard_files, set_thresholds, options, provenance)
    for name in _NOT_ALWAYS:  # of an earlier report with other options
        (output / name).unlink(missing_ok=True)
    table = collected.tally.by_group(provenance.confusion, counts)
    write_differential(output / DIFFERENTIAL_FILE, table)
    reviewed = None
    if options.review is not None:
        reviewed = collected.reviewed.by_group(None, counts)
        write_differential(output / REVIEWED_FILE, reviewed)
    flags = group_flags(table, options.profile)
    _write_flags(output / "flags.csv", flags)
    if collected.known:
        _write_confusion(output / "confusion.csv", Agreement(collected.all_known().labels))
    if options.anndata:
        facts = dict(provenance.facts)
        write_anndata(output / "cells.h5ad", output / "cells.parquet", facts)
    found = _drawings(collected, table, options.profile, read_paces(shard_files))
    shutil.rmtree(output / PLOTS, ignore_errors=True)
    svgs = drawings.write_drawings(output / PLOTS, found)
    page = render_page(
        RunView(
            name=resolved(run_dir).name,
            collected=collected,
            table=table,
            reviewed=reviewed,
            flags=flags,
            profile=options.profile,
            provenance=provenance,
            svgs=svgs,
            files=_files(output),
        )
    )
    with replacing(output / PAGE) as file:
        # The name of a folder, and what the command says of it, need not be UTF-8.
        file.write(page.encode("utf-8", "backslashreplace"))


def _write_cells(
    output: Path,
    shard_files: Sequence[Path],
    set_thresholds: Sequence[float] | None,
    options: ReportOptions,
    provenance: Provenance,
) -> tuple[Collected, Mapping[str, float] | None]:
    """Stream the cells into their tables; what the rest is made of, and the groups' blood cell counts."""
    found = shard_schema(shard_files)
    schema = _columns(found, shard_files, set_thresholds is not None, options.review is not None)
    collected, seen = Collected(), _Seen(options.review)
    placed = set(BOX_COLUMNS) <= set(found.names) and not provenance.saved_crops
    geojson = GeoJsonFolder(output / GEOJSON) if placed else None
    with ExitStack() as files:
        append = [
            files.enter_context(csv_file(output / CELLS_FILE, schema)),
            files.enter_context(parquet_file(output / "cells.parquet", schema)),
        ]
        append_errors = files.enter_context(csv_file(output / "errors.csv", ERROR_SCHEMA))
        if geojson is not None:
            files.callback(geojson.discard)
        for part in iter_cells(shard_files, found):
            rows = _prepared(part, schema, set_thresholds, options)
            for append_cells in append:
                append_cells(rows.select(schema.names))
            append_errors(select_errors(rows))
            cells = rows.to_pandas()
            seen.add(cells)
            collected.add(cells)
            if geojson is not None:
                geojson.add(cells)
        seen.check()
        counts = options.counts_of(collected.tally.groups)
        if geojson is not None:
            geojson.finish()
        else:
            shutil.rmtree(output / GEOJSON, ignore_errors=True)
    return collected, counts


class _Seen:
    """Makes sure that every reviewed cell came by."""

    def __init__(self, review: Review | None) -> None:
        self._review = review
        self._wanted = frozenset() if review is None else frozenset(review.table.index)
        self._seen: set[str] = set()

    def add(self, cells: pd.DataFrame) -> None:
        self._seen |= self._wanted.intersection(cells["cell_id"])

    def check(self) -> None:
        if self._review is not None:
            self._review.refuse_unknown(self._seen)


def _columns(
    found: pa.Schema, shard_files: Sequence[Path], with_sets: bool, with_review: bool
) -> pa.Schema:
    """Find the columns of the tables of cells: not those that only say where pixels lie."""
    found = pa.schema([column for column in found if column.name not in PLACE_TYPES])
    if GIVEN_LABEL_COLUMN not in found.names and _labelled_folders(shard_files):
        found = found.append(pa.field(GIVEN_LABEL_COLUMN, pa.string()))
    more = ([SET_COLUMN] if with_sets else []) + (list(REVIEW_COLUMNS) if with_review else [])
    return pa.schema([*found, *(pa.field(name, pa.string()) for name in more)])


def _labelled_folders(shard_files: Sequence[Path]) -> bool:
    """Tell whether cells lie in folders that are called like classes."""
    return any(
        label_in(group or "")[0]
        for part in iter_cells(shard_files, _GROUP_SCHEMA)
        for group in part["group"].unique().to_pylist()
    )


def _prepared(
    part: pa.Table,
    schema: pa.Schema,
    set_thresholds: Sequence[float] | None,
    options: ReportOptions,
) -> pa.Table:
    """Add to some rows what the report says of them."""
    if GIVEN_LABEL_COLUMN in schema.names:
        part = _with_given_label(part)
    part = _grouped(part, options.grouping)
    if set_thresholds is not None:
        part = with_prediction_sets(part, set_thresholds)
    if options.review is not None:
        merged = merge_review(part.select(["cell_id"]).to_pandas(), options.review)
        for name in REVIEW_COLUMNS:
            part = part.append_column(name, pa.array(merged[name], pa.string()))
    return part


def _with_given_label(part: pa.Table) -> pa.Table:
    groups = part["group"].to_pylist()
    given = (
        part[GIVEN_LABEL_COLUMN].to_pylist()
        if GIVEN_LABEL_COLUMN in part.column_names
        else [None] * len(groups)
    )
    by_folder = {group: label_in(group or "")[0] for group in set(groups)}
    labels = [label or by_folder[group] for label, group in zip(given, groups, strict=True)]
    if GIVEN_LABEL_COLUMN in part.column_names:
        part = part.drop_columns([GIVEN_LABEL_COLUMN])
    return part.append_column(GIVEN_LABEL_COLUMN, pa.array(labels, pa.string()))


def _grouped(part: pa.Table, grouping: Regrouping) -> pa.Table:
    names = [part[name].to_pylist() for name in ("source", "member", "group")]
    groups = [
        grouping.rule(source or "", member or "", group or "")
        for source, member, group in zip(*names, strict=True)
    ]
    at = part.column_names.index("group")
    return part.set_column(at, "group", pa.array(groups, pa.string()))


def _write_flags(path: Path, flags: Sequence[Flag]) -> None:
    columns = {name: [getattr(flag, name) for flag in flags] for name in _FLAG_SCHEMA.names}
    with csv_file(path, _FLAG_SCHEMA) as append:
        append(pa.table(columns, schema=_FLAG_SCHEMA))


def _write_confusion(path: Path, known: Agreement) -> None:
    schema = pa.schema([("known", pa.string()), *((label, pa.int64()) for label in LABELS)])
    columns = {label: known.table[: len(CLASSES), k] for k, label in enumerate(LABELS)}
    with csv_file(path, schema) as append:
        append(pa.table({"known": list(CLASSES), **columns}, schema=schema))


def _drawings(
    collected: Collected,
    table: pd.DataFrame,
    profile: Profile | None,
    paces: Sequence[ShardPace],
) -> list[drawings.Drawing]:
    found = [
        drawings.Drawing("shares", partial(drawings.shares, table)),
        drawings.Drawing("confidence", partial(drawings.confidences, collected.tally)),
    ]
    if paces:
        found.append(drawings.Drawing("throughput", partial(drawings.throughput, paces)))
    if collected.known:
        known = Agreement(collected.all_known().labels)
        found.append(drawings.Drawing("confusion", partial(drawings.confusion, known)))
    return found + drawings.group_drawings(by_group(table, MAX_GROUPS), profile)


def _files(output: Path) -> tuple[str, ...]:
    """List what the report consists of besides the page and its drawings."""
    names = [name for name in REPORT_FILES if name != PAGE] + [f"{GEOJSON}/"]
    return tuple(name for name in names if (output / name).exists())
