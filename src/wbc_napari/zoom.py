"""Captions are shown where there is room for them: not on a thousand cells of some pixels each."""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Points

from wbc_batch.schema import BOX_COLUMNS
from wbc_napari.geometry import world_matrix
from wbc_napari.marks import has_results

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["LEAST_PIXELS", "camera", "show_captions"]

#: A cell that is smaller on the screen, in pixels, gets no caption.
LEAST_PIXELS = 60.0

#: Shapes that are measured: they are of one kind of cell.
_SOME = 50


def camera(viewer: "ViewerModel") -> Any:
    """Return the viewer's camera; since napari 0.9 it belongs to the scene."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def show_captions(viewer: "ViewerModel") -> None:
    """Show or hide the captions of all layers of cells in fields of view, by the zoom of the camera."""
    for layer in viewer.layers:
        if has_results(layer) and set(BOX_COLUMNS) <= set(layer.features.columns):
            wanted = camera(viewer).zoom * _side(layer) >= LEAST_PIXELS
            if layer.text.visible != wanted:
                layer.text.visible = wanted


def _side(layer: Layer) -> float:
    """Typical side of a cell, in units of the world."""
    if isinstance(layer, Points):
        side = np.median(layer.size) if len(layer.data) else 0.0
    else:
        some = [np.ptp(np.asarray(shape)[:, -2:], axis=0).max() for shape in layer.data[:_SOME]]
        side = np.median(some) if some else 0.0
    return float(side) * float(np.sqrt(abs(np.linalg.det(world_matrix(layer)[-3:-1, -3:-1]))))
