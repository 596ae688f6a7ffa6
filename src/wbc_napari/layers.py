"""From an Image layer to crops, and from predictions to a Points layer.

Reads layers, changes none, and knows no Qt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.errors import InputError
from wbc_batch.schema import (
    CELL_COLUMNS,
    CLASS_COLORS,
    ERROR_COLOR,
    STATUS_ERROR,
    STATUS_OK,
    UNIDENTIFIED,
)
from wbc_batch.sources import Cell

if TYPE_CHECKING:
    from napari.layers import Image

    from wbc_batch.classifier import Predictions

__all__ = [
    "CropStack",
    "LayerData",
    "cell_table",
    "crop_stack",
    "points_layer",
    "same_place",
]

LayerData = tuple[Any, dict[str, Any], str]

#: Crops that are read and classified together: few, so that progress moves and a cancel is quick.
BATCH = 64

#: A dask or zarr chunk is read whole anyway; up to this many crops it is also classified in one go.
MAX_BATCH = 512


@dataclass(frozen=True, eq=False)
class CropStack:
    """A stack of crops as a layer holds it; no pixel is read until asked for.

    Attributes
    ----------
    name : str
        The layer's name; also the group of its cells in a differential.
    source : str
        The file that the layer came from, else its name.
    data : array_like, shape (N, H, W) or (N, H, W, 3 or 4)
        NumPy, dask or zarr: whatever slices along its first axis.
    """

    name: str
    source: str
    data: Any

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop, pixels."""
        height, width = self.data.shape[1:3]
        return int(height), int(width)

    def spans(self) -> list[tuple[int, int]]:
        """First and one-past-last index of each batch to read, along the chunks of the array."""
        chunks = getattr(self.data, "chunks", None)
        first = (
            np.ravel(chunks[0])[0] if chunks else 1
        )  # a tuple per axis in dask, a number in zarr
        chunk = int(first) if 1 <= first <= MAX_BATCH else 1
        step = chunk * max(1, BATCH // chunk)
        return [(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def read(self, start: int, stop: int) -> NDArray:
        """Read the crops from `start` up to `stop`."""
        return np.asarray(self.data[start:stop])

    def cells(self, start: int, stop: int) -> Iterator[Cell]:
        """Identify the crops from `start` up to `stop`."""
        for index in range(start, stop):
            yield Cell(source=self.source, member="", index=index, group=self.name)


def crop_stack(layer: "Image | None") -> CropStack:
    """Take an Image layer as a stack of crops.

    Parameters
    ----------
    layer : napari.layers.Image or None
        (N, Y, X) besides colour channels: one crop per step of the slider.

    Returns
    -------
    CropStack

    Raises
    ------
    InputError
        If there is no layer, or its shape is not that of a stack of crops.
    """
    if layer is None:
        raise InputError(
            "There is no image to classify; open a stack of crops (N, Y, X, 3), or try "
            "File > Open Sample > White blood cells > Drawn crops."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(side) for side in data.shape)
    spatial = shape[:-1] if layer.rgb else shape
    if len(spatial) == 2:
        raise InputError(
            f"'{layer.name}' is one picture, not a stack of crops; "
            "stack the cropped cells along a first axis: (N, Y, X, 3)."
        )
    if len(spatial) != 3:
        raise InputError(
            f"'{layer.name}' has the shape {shape}; a stack of crops has (N, Y, X, 3), "
            "or (N, Y, X) if grey."
        )
    if 0 in shape:
        raise InputError(f"'{layer.name}' is empty (shape {shape}); there is no crop to classify.")
    source = layer.source.path or layer.name
    return CropStack(name=layer.name, source=str(source), data=data)


def cell_table(
    stack: CropStack,
    span: tuple[int, int],
    predictions: "Predictions | None",
    errors: dict[int, str],
) -> pd.DataFrame:
    """Put one batch of results into the table that batch runs and layers share.

    Parameters
    ----------
    stack : CropStack
    span : tuple of int
        First and one-past-last crop of the batch.
    predictions : Predictions or None
        Of the crops that are not in `errors`, in order; None if there is none.
    errors : dict
        From the index of a crop to the reason why it could not be classified.

    Returns
    -------
    DataFrame
        The columns of `wbc_batch.schema.CELL_COLUMNS`, one row per crop. Where there is nothing to
        say, text is "" and a number NaN.
    """
    cells = list(stack.cells(*span))
    table = pd.DataFrame(
        {
            "cell_id": [cell.cell_id for cell in cells],
            "source": stack.source,
            "member": "",
            "index": [cell.index for cell in cells],
            "group": stack.name,
            "status": [STATUS_ERROR if cell.index in errors else STATUS_OK for cell in cells],
            "error": [errors.get(cell.index or 0, "") for cell in cells],
        }
    )
    if predictions is not None:
        results = predictions.to_frame().set_index(table.index[table["status"] == STATUS_OK])
        table = table.join(results)
    table = table.reindex(columns=list(CELL_COLUMNS))
    text = ["label", "predicted"]
    return table.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, ""))


def same_place(layer: "Image") -> dict[str, Any]:
    """Return the attributes that put another layer exactly where this one is."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine.affine_matrix,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def points_layer(
    layer: "Image", stack: CropStack, cells: pd.DataFrame, model: dict[str, str]
) -> LayerData:
    """Describe the Points layer that shows the results: one frame per crop, coloured by class.

    A point is drawn as the frame of its crop, so that it hides nothing of the cell.

    Parameters
    ----------
    layer : napari.layers.Image
        The layer that was classified.
    stack : CropStack
        The same as crops.
    cells : DataFrame
        See `cell_table`.
    model : dict
        Name, SHA-256 and device of the model, kept in the layer's metadata.

    Returns
    -------
    tuple
        Coordinates (n, y, x) of the centres of the crops, attributes, ``"points"``.
    """
    height, width = stack.size
    side = min(height, width)
    index = cells["index"].to_numpy(float)
    centres = np.column_stack(
        [index, np.full_like(index, (height - 1) / 2), np.full_like(index, (width - 1) / 2)]
    )
    attributes = {
        "name": f"{layer.name} cells",
        "features": cells,
        "symbol": "square",
        "size": 0.98 * side,
        "face_color": "transparent",
        "border_color": "label",
        "border_color_cycle": {**CLASS_COLORS, "": ERROR_COLOR},
        "border_width": 0.012,
        "text": {
            "string": [_caption(cell) for cell in cells.to_dict("records")],
            "color": "black",
            "size": 12,
            "anchor": "lower_left",
            "translation": [0.0, -0.47 * side, -0.46 * side],
        },
        "metadata": {"wbc_napari": {"image": layer.unique_id, "model": model}},
        **same_place(layer),
    }
    return centres, attributes, "points"


def _caption(cell: Mapping[Any, Any]) -> str:
    if cell["status"] == STATUS_ERROR:
        return "not classified"
    sure = cell["confidence"] > 0.99  # rounding must not make up a certainty
    guess = f"{cell['predicted']} {'>99%' if sure else format(cell['confidence'], '.0%')}"
    return f"unidentified ({guess})" if cell["label"] == UNIDENTIFIED else guess
