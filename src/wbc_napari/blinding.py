"""What the model said, out of the features of a layer: napari tells them in status bar, tooltips and table.

The whole table is kept in the metadata of the layer meanwhile.
"""

import pandas as pd
from napari.layers import Layer
from pandas.api.types import is_numeric_dtype

from wbc_batch.schema import CELL_COLUMNS, SET_COLUMN
from wbc_napari.marks import mark_of

__all__ = ["hide_model", "kept_table", "show_model", "whole_table"]

#: What the model said of a cell.
_SAID = (*CELL_COLUMNS[CELL_COLUMNS.index("label") :], SET_COLUMN)


def kept_table(layer: Layer) -> pd.DataFrame | None:
    """Return the table of a layer as it was when the model was hidden; None where it is not.

    It is the kept one itself: whoever changes the features changes it, too.
    """
    return mark_of(layer).get("kept")


def whole_table(layer: Layer) -> pd.DataFrame:
    """Return the features of a layer, with what the model said also where that is hidden.

    Rows may have been added or deleted meanwhile: what was said is found by the cell.
    """
    table, kept = layer.features, kept_table(layer)
    if kept is None:
        return table
    said = [name for name in _SAID if name in kept]
    known = kept.drop_duplicates("cell_id").set_index("cell_id")[said].reindex(table["cell_id"])
    texts = {name: "" for name in said if not is_numeric_dtype(kept[name])}
    known = known.fillna(texts).set_index(table.index)
    order = [name for name in kept.columns if name in said or name in table]
    own = [name for name in table.columns if name not in order]
    return pd.concat([table, known], axis=1)[[*order, *own]]


def hide_model(layer: Layer) -> None:
    """Take what the model said out of the features of a layer."""
    table = whole_table(layer)
    mark_of(layer)["kept"] = table.copy()
    layer.features = table.drop(columns=[name for name in _SAID if name in table])


def show_model(layer: Layer) -> None:
    """Put what the model said back into the features of a layer, if it was taken out."""
    if kept_table(layer) is not None:
        table = whole_table(layer)
        del mark_of(layer)["kept"]
        layer.features = table
