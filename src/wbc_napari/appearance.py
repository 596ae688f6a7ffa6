"""How cells look on the canvas: a frame in the colour of the class, its name and confidence."""

from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from wbc_batch.schema import CLASS_COLORS, ERROR_COLOR, STATUS_ERROR, STATUS_OK, UNIDENTIFIED
from wbc_napari.crops import CropStack, FieldCrops
from wbc_napari.geometry import placed_like, world_matrix
from wbc_napari.images import known_by, overlay_axes
from wbc_napari.layers import positions
from wbc_napari.marks import MARK, LayerData, Mark
from wbc_napari.tables import current_labels, reviewed_labels

__all__ = [
    "captions",
    "colours",
    "dress",
    "forget_colour",
    "points_layer",
    "repaint",
    "text_of",
]

#: Width of the frame around a cell in a field of view, in parts of its side: the colour is seen from afar.
_FRAME = 0.03

#: Colour of what is not to be seen: predictions in blind mode, cells that were not classified yet.
_HIDDEN = "#BBBBBB"

#: What the look of a cell depends on.
_LOOK = ("status", "label", "predicted", "confidence", "reviewed_label")

#: Captions have room for the longest one, so that each can be written in its place.
_CAPTION = np.dtype("<U40")


def captions(cells: pd.DataFrame, hidden: bool = False) -> NDArray[np.str_]:
    """Text of each cell; with `hidden`, nothing that the model said."""
    said = reviewed_labels(cells)
    model = np.full(len(cells), "", object) if hidden else _said_by_model(cells)
    texts = [f"{label} ✓" if label else guess for label, guess in zip(said, model, strict=True)]
    return np.array(texts, _CAPTION)


def _said_by_model(cells: pd.DataFrame) -> list[str]:
    columns = (cells[name].tolist() for name in ("status", "label", "predicted", "confidence"))
    return [_guess(*cell) for cell in zip(*columns, strict=True)]


def _guess(status: str, label: str, predicted: str, confidence: float) -> str:
    if status == STATUS_ERROR:
        return "not classified"
    if status != STATUS_OK:
        return ""
    # Rounding must not make up a certainty.
    guess = f"{predicted} {'>99%' if confidence > 0.99 else format(confidence, '.0%')}"
    return f"unidentified ({guess})" if label == UNIDENTIFIED else guess


def colours(cells: pd.DataFrame, hidden: bool = False) -> NDArray[np.float32]:
    """RGBA of each cell, (n, 4), 0..1."""
    table = {name: _rgba(colour) for name, colour in CLASS_COLORS.items()}
    table[""] = _rgba(_HIDDEN)
    labels = reviewed_labels(cells) if hidden else current_labels(cells)
    rows = np.array([table.get(label, table[""]) for label in labels], np.float32).reshape(-1, 4)
    if not hidden:
        failed = (cells["status"] == STATUS_ERROR).to_numpy() & (labels == "")
        rows[failed] = _rgba(ERROR_COLOR)
    return rows


def _rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def points_layer(
    image: Image,
    crops: CropStack | FieldCrops,
    cells: pd.DataFrame,
    model: dict[str, Any],
    marks: Layer | None = None,
) -> LayerData:
    """Describe a Points layer of the results: one frame per crop, so that nothing of it is hidden.

    Parameters
    ----------
    image : Image
        The layer that was classified.
    crops : CropStack or FieldCrops
        Its crops.
    cells : DataFrame
        See `wbc_napari.tables.cell_table`.
    model : dict
        Name, SHA-256 and device of the model, kept in the layer's metadata.
    marks : Labels, optional
        The layer that marks the cells.

    Returns
    -------
    tuple
        Centres of the crops, attributes, ``"points"``.
    """
    axes = overlay_axes(image, crops.colours)
    mark = _mark(image, model)
    if marks is not None:
        mark["marks"] = marks.unique_id
    stack = isinstance(crops, CropStack)
    side = (
        np.full(len(crops), 0.98 * min(crops.size))
        if isinstance(crops, CropStack)
        else crops.boxes[:, 2:].max(axis=1)
    )
    attributes = {
        "name": f"{image.name} cells",
        "features": cells,
        "symbol": "square",
        "size": side,
        "face_color": "transparent",
        "border_color": colours(cells),
        "border_width": 0.012 if stack else _FRAME,
        "text": text_of(cells, float(np.max(side)) if len(cells) else 0.0, len(axes)),
        "metadata": {MARK: mark},
        **placed_like(image, axes),
    }
    return positions(crops, image)[:, axes], attributes, "points"


def text_of(cells: pd.DataFrame, side: float, ndim: int) -> dict[str, Any]:
    """Describe the captions, in the upper left corner of a frame."""
    shift = [0.0] * (ndim - 2) + [-0.48 * side, -0.47 * side]
    return {
        "string": {"array": captions(cells), "default": ""},
        "color": "black",
        "size": 12,
        "anchor": "lower_left",
        "translation": shift,
    }


def _mark(image: Image, model: dict[str, Any]) -> Mark:
    return {"image": image.unique_id, "known_by": known_by(image), "model": model}


def dress(
    layer: Layer, cells: pd.DataFrame, image: Image, model: dict[str, Any], side: float
) -> None:
    """Put results on the user's own Points or Shapes layer: features, colours, captions.

    Columns of the user's own are kept. `side`, in pixels of the image, is that of a crop around a point:
    points that are drawn later are cut out alike.
    """
    own = [name for name in layer.features.columns if name not in cells.columns]
    layer.features = pd.concat([layer.features[own].reset_index(drop=True), cells], axis=1)
    mark: Mark = {**_mark(image, model), "own": True, "side": side}
    layer.metadata = {**layer.metadata, MARK: mark}
    layer.face_color = "transparent"
    if isinstance(layer, Points):
        layer.symbol = "square"
        scale = (
            np.abs(np.linalg.det(_plane(layer))) ** 0.5
            / np.abs(np.linalg.det(_plane(image))) ** 0.5
        )
        layer.size = (cells[["width", "height"]].max(axis=1) / scale).to_numpy()
        layer.border_width = _FRAME
        side = float(np.max(layer.size))
        layer.text = text_of(cells, side, layer.ndim)
    else:
        layer.edge_width = _FRAME * float(np.median([_side(shape) for shape in layer.data]))
        layer.text = text_of(cells, 0.0, layer.ndim) | {"anchor": "upper_left"}
    repaint(layer)


def _side(shape: NDArray) -> float:
    """Longer side of the box around a shape, in its own coordinates."""
    return float(np.ptp(np.asarray(shape)[:, -2:], axis=0).max())


def _plane(layer: Layer) -> NDArray[np.float64]:
    return world_matrix(layer)[-3:-1, -3:-1]


def repaint(layer: Layer, rows: NDArray[np.intp] | None = None, hidden: bool = False) -> None:
    """Show what the features say now.

    Parameters
    ----------
    layer : Points or Shapes
    rows : ndarray of int, optional
        The cells that changed; default: all.
    hidden : bool
        Show nothing that the model said.
    """
    changed = np.arange(len(layer.data)) if rows is None else np.asarray(rows, np.intp)
    if not len(changed):
        return
    look = [name for name in _LOOK if name in layer.features]
    cells = layer.features[look].iloc[changed]
    _caption_array(layer)[changed] = captions(cells, hidden)
    if isinstance(layer, Points):
        # In place: the setter would check and copy the colours of all cells, and draw them twice.
        layer.border_color[changed] = colours(cells, hidden)
        layer.events.border_color()
    else:
        painted = np.array(layer.edge_color)
        painted[changed] = colours(cells, hidden)
        layer.edge_color = painted
        layer.refresh_text()


def forget_colour(layer: Layer) -> None:
    """Let napari's own controls show no class: they keep the colour of the cell that was selected last."""
    pattern = "current_border_color" if isinstance(layer, Points) else "current_edge_color"
    setattr(layer, pattern, _HIDDEN)  # colours what is selected, too


def _caption_array(layer: Layer) -> NDArray[np.str_]:
    """Captions of all cells, to be written to; napari draws them with the next change of the layer."""
    there = getattr(layer.text.string, "array", None)
    if there is None or len(there) != len(layer.data) or there.dtype != _CAPTION:
        blank = np.full(len(layer.data), "", _CAPTION)
        layer.text.string = {"array": blank, "default": ""}
    return layer.text.string.array
