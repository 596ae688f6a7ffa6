"""The cells as an AnnData table, for scanpy, squidpy and their kin."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from wbc_batch.files import replacing
from wbc_batch.schema import BOX_COLUMNS, CLASSES, PROBABILITY_COLUMNS

__all__ = ["write_anndata"]


def write_anndata(path: Path, cells: Path, facts: dict[str, str]) -> None:
    """Write ``cells.h5ad``: probabilities as values, everything else as observations.

    Parameters
    ----------
    path : Path
    cells : Path
        ``cells.parquet``; the whole table has to fit into memory.
    facts : dict of str to str
        Where the numbers come from, for ``uns``.
    """
    import anndata

    with cells.open("rb") as file:
        rows = pq.read_table(file).to_pandas().set_index("cell_id")
    # HDF5 knows no missing text.
    text = [name for name in rows if not pd.api.types.is_numeric_dtype(rows[name])]
    observed = rows.drop(columns=list(PROBABILITY_COLUMNS))
    observed[text] = observed[text].astype(object).where(observed[text].notna(), "")
    categories = {name: "category" for name in ("group", "status", "label", "predicted")}
    table = anndata.AnnData(
        X=rows[list(PROBABILITY_COLUMNS)].to_numpy(np.float32),
        obs=observed.astype(categories),
        var=pd.DataFrame(index=list(CLASSES)),
        uns={"wbc_batch": facts},
    )
    if set(BOX_COLUMNS) <= set(rows):
        corner, size = rows[["x", "y"]].to_numpy(float), rows[["width", "height"]].to_numpy(float)
        table.obsm["spatial"] = corner + size / 2.0
    with replacing(path) as file:
        table.write_h5ad(file.name)
