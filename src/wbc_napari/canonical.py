"""What the network sees: the canonical crops of a stack as a layer beside it."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError
from wbc_napari.crops import Crops, read_one
from wbc_napari.geometry import world_matrix
from wbc_napari.images import plane_axes
from wbc_napari.layers import crop_stack
from wbc_napari.marks import MARK, LayerData, Mark

if TYPE_CHECKING:
    from napari.layers import Image

    from wbc_batch.classifier import Classifier

__all__ = ["canonical_layer"]

#: Room between the crop and its canonical crop, in widths of the crop.
_GAP = 0.05


def canonical_layer(layer: "Image", crops: Crops, classifier: "Classifier") -> LayerData:
    """Describe the Image layer of the canonical crops, to the right of the crops and equally high.

    Parameters
    ----------
    layer : napari.layers.Image
    crops : Crops
        One for each step of it.
    classifier : Classifier
        Prepares each crop when it is looked at.

    Returns
    -------
    tuple
        A dask array (N, S, S, 3) of uint8, attributes, ``"image"``.
    """
    import dask.array as da

    stack = crop_stack(layer)
    side = classifier.input_size
    axes = [*plane_axes(layer, stack.colours), layer.ndim]

    def prepare(index: NDArray) -> NDArray[np.uint8]:
        try:
            return classifier.prepare(read_one(crops, int(index[0]))).pixels[np.newaxis]
        except ImageError:  # the reason stands in the row of this cell; here it stays blank
            return np.zeros((1, side, side, 3), np.uint8)

    canonical = da.arange(len(stack), chunks=1).map_blocks(
        prepare,
        new_axis=[1, 2, 3],
        chunks=((1,) * len(stack), (side,), (side,), (3,)),
        meta=np.empty((0, 0, 0, 0), np.uint8),
    )
    attributes = {
        "name": f"{layer.name} canonical",
        "rgb": True,
        "affine": world_matrix(layer)[np.ix_(axes, axes)] @ _beside(stack.size, side),
        "units": [layer.units[axis] for axis in axes[:-1]],
        "axis_labels": [layer.axis_labels[axis] for axis in axes[:-1]],
        "metadata": {MARK: Mark(image=layer.unique_id)},
    }
    return canonical, attributes, "image"


def _beside(size: tuple[int, int], side: int) -> NDArray[np.float64]:
    """Return the 4 x 4 matrix from the pixels of a square picture to those right of a crop."""
    height, width = size
    zoom = height / side
    matrix = np.diag([1.0, zoom, zoom, 1.0])
    # Pixel centres have whole coordinates, so edges lie half a pixel further out.
    matrix[1, 3] = (zoom - 1) / 2
    matrix[2, 3] = (zoom - 1) / 2 + width * (1 + _GAP)
    return matrix
