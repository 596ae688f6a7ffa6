"""What tells the class of a cell, out of the features of a layer: napari shows them in status bar and table.

That is what the model or a table said of it, and where it lies: folders are often named after classes. The
whole table is kept in the metadata of the layer meanwhile.
"""

from collections.abc import Iterable

import pandas as pd
from napari.layers import Layer
from pandas.api.types import is_numeric_dtype

from wbc_batch.schema import CELL_COLUMNS, GIVEN_LABEL_COLUMN, PLACE_TYPES, SET_COLUMN
from wbc_napari.marks import MARK, mark_of

__all__ = ["hide_class", "kept_table", "part_copies", "show_class", "whole_table"]

#: Where a cell lies, and what was said of it.
_TELLING = (
    *("source", "member", "group", *PLACE_TYPES),
    *CELL_COLUMNS[CELL_COLUMNS.index("label") :],
    *(SET_COLUMN, GIVEN_LABEL_COLUMN),
)


def kept_table(layer: Layer) -> pd.DataFrame | None:
    """Return the table of a layer as it was when the class was hidden; None where it is not.

    It is the kept one itself: whoever changes the features changes it, too.
    """
    return mark_of(layer).get("kept")


def whole_table(layer: Layer) -> pd.DataFrame:
    """Return the features of a layer, with what tells the class also where that is hidden.

    Rows may have been added or deleted meanwhile: what was hidden is found by the cell.
    """
    table, kept = layer.features, kept_table(layer)
    if kept is None:
        return table
    hidden = [name for name in _TELLING if name in kept]
    known = kept.drop_duplicates("cell_id").set_index("cell_id")[hidden].reindex(table["cell_id"])
    # Of a packed cell that has no place, none is made up.
    texts = [name for name in hidden if not (name in PLACE_TYPES or is_numeric_dtype(kept[name]))]
    known = known.fillna(dict.fromkeys(texts, "")).set_index(table.index)
    order = [name for name in kept.columns if name in hidden or name in table]
    own = [name for name in table.columns if name not in order]
    return pd.concat([table, known], axis=1)[[*order, *own]]


def hide_class(layer: Layer) -> None:
    """Take what tells the class out of the features of a layer."""
    table = whole_table(layer)
    mark_of(layer)["kept"] = table.copy()
    layer.features = table.drop(columns=[name for name in _TELLING if name in table])


def show_class(layer: Layer) -> None:
    """Put what tells the class back into the features of a layer, if it was taken out."""
    if kept_table(layer) is not None:
        table = whole_table(layer)
        del mark_of(layer)["kept"]
        layer.features = table


def part_copies(layers: Iterable[Layer]) -> None:
    """Give layers that napari has duplicated marks of their own: a copy comes with the very same one."""
    known: set[int] = set()
    for layer in layers:
        mark = mark_of(layer)
        if not mark:
            continue
        if id(mark) in known:
            mark = mark.copy()
            if "kept" in mark:
                mark["kept"] = mark["kept"].copy()
            layer.metadata = {**layer.metadata, MARK: mark}
        known.add(id(mark))
