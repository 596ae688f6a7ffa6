"""What a layer is to this plugin: kept in the layer's metadata, described here."""

from collections.abc import Hashable
from typing import Any, TypedDict

import pandas as pd
from napari.layers import Layer

__all__ = ["MARK", "LayerData", "Mark", "has_results", "mark_of"]

#: Key of what this plugin keeps in the metadata of a layer.
MARK = "wbc_napari"

#: What napari makes a layer of: data, attributes, type.
LayerData = tuple[Any, dict[str, Any], str]


class Mark(TypedDict, total=False):
    """What is kept of a layer, each key only where it holds.

    Three kinds of layers have a mark: layers with results (`model`), images of listed crops (`run`, `base`
    alone) and canonical crops (`image` alone). `appearance` writes it for cells on images of the user,
    `batch_run` for those of a run or packed store, `canonical` for its crops; `companions` reads it, and
    others as far as they are named here.

    Attributes
    ----------
    image : Hashable
        Unique id of the image that was classified, or that canonical crops stand beside. `companions` puts
        in the id of the same image opened again.
    known_by : dict
        How that image is known when it is opened again, see `wbc_napari.images.known_by`.
    model : dict
        The model of the results, see `wbc_napari.runner.Step`; of a run as far as it is recorded. Read by
        `session` and the docks.
    marks : Hashable
        Unique id of the Labels layer whose objects the cells are.
    own : bool
        The layer is the user's Points or Shapes, dressed with results. Read by `classify_form`, too.
    side : float
        With `own`, the side of the square around a point, pixels of the image.
    run : str
        Path of the batch run, its table, or the packed store that the cells are listed in. Read by
        `session` and `report_page`, too.
    base : str
        With `run`, the folder that relative sources start from; "" for the current one.
    kept : DataFrame
        The whole table while what tells the class is hidden. Written and read by `blinding`.
    """

    image: Hashable
    known_by: dict[str, Any]
    model: dict[str, Any]
    marks: Hashable
    own: bool
    side: float
    run: str
    base: str
    kept: pd.DataFrame


def mark_of(layer: Layer) -> Mark:
    """Return the mark of a layer, itself; an empty one where it has none."""
    return layer.metadata.get(MARK, {})


def has_results(layer: Layer) -> bool:
    """Whether a layer carries results."""
    return "model" in mark_of(layer)
