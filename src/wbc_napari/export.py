"""Write a layer's results as the files that a batch run writes."""

from pathlib import Path

import pandas as pd

from wbc_batch.errors import RunError
from wbc_batch.schema import CELL_COLUMNS

__all__ = ["save_tables"]


def save_tables(cells: pd.DataFrame, folder: Path) -> None:
    """Write ``cells.csv`` and ``differential.csv`` into a folder, replacing those that are there.

    Parameters
    ----------
    cells : DataFrame
        The features of a Points layer; see `wbc_napari.layers.cell_table`.
    folder : Path

    Raises
    ------
    RunError
        If the folder cannot be written to.
    """
    import pyarrow as pa

    from wbc_batch.report.differential import differential, write_differential
    from wbc_batch.report.tables import CELL_SCHEMA, csv_file

    text = [name for name in CELL_COLUMNS if pa.types.is_string(CELL_SCHEMA.field(name).type)]
    rows = cells.astype(dict.fromkeys(text, object))
    rows[text] = rows[text].where(rows[text] != "", None)
    try:
        with csv_file(folder / "cells.csv", CELL_SCHEMA) as append:
            append(pa.Table.from_pandas(rows, schema=CELL_SCHEMA, preserve_index=False))
        write_differential(folder / "differential.csv", differential(cells))
    except OSError as error:
        raise RunError(
            f"{folder}: the tables cannot be written there ({error.strerror})."
        ) from error
