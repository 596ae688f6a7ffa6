"""All the reports of a run, in one pass over its rows."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from wbc_batch.report.differential import Tally, write_differential
from wbc_batch.report.gallery import Picks
from wbc_batch.report.page import MAX_ERRORS, render_page
from wbc_batch.report.provenance import read_provenance
from wbc_batch.report.tables import (
    CELL_SCHEMA,
    ERROR_SCHEMA,
    csv_file,
    iter_cells,
    replacing,
    select_errors,
    with_prediction_sets,
)
from wbc_batch.schema import SET_COLUMN

__all__ = ["write_reports"]


def write_reports(
    run_dir: Path, shard_files: Sequence[Path], set_thresholds: Sequence[float] | None = None
) -> None:
    """Write ``cells.csv``, ``errors.csv``, ``differential.csv`` and ``report.html`` of a run.

    The rows are read once, some ten thousand at a time; memory grows by 4 bytes per cell (see
    `wbc_batch.report.differential.Tally`). Each file appears under its name when it is complete and
    replaces an older one.

    Parameters
    ----------
    run_dir : Path
        The run directory; ``run.json`` in it tells the page how the run was made.
    shard_files : sequence of Path
        The Parquet files of the run, in the order of its cells.
    set_thresholds : sequence of float, optional
        One per class; adds the column of prediction sets to ``cells.csv``, see `with_prediction_sets`.

    Raises
    ------
    RunError
        If a shard cannot be read or a report cannot be written.
    """
    tally, picks = Tally(), Picks()
    columns = CELL_SCHEMA
    if set_thresholds is not None:
        columns = CELL_SCHEMA.append(pa.field(SET_COLUMN, pa.string()))
    first_errors = ERROR_SCHEMA.empty_table()
    with (
        csv_file(run_dir / "cells.csv", columns) as append_cells,
        csv_file(run_dir / "errors.csv", ERROR_SCHEMA) as append_errors,
    ):
        for part in iter_cells(shard_files):
            errors = select_errors(part)
            append_cells(
                part if set_thresholds is None else with_prediction_sets(part, set_thresholds)
            )
            append_errors(errors)
            first_errors = pa.concat_tables([first_errors, errors])[:MAX_ERRORS]
            cells = part.to_pandas()
            tally.add(cells)
            picks.add(cells)
    write_differential(run_dir / "differential.csv", tally.by_group())
    name = run_dir.resolve().name
    page = render_page(name, tally, picks, first_errors.to_pandas(), read_provenance(run_dir))
    with replacing(run_dir / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
