"""Where layers lie: from the pixels of one to the world, and to the pixels of another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image, Layer

__all__ = ["micrometres_per_pixel", "placed_like", "to_pixels", "world_matrix"]


def world_matrix(layer: "Layer") -> NDArray[np.float64]:
    """Matrix (n+1, n+1) from a layer's data coordinates to the world: all its transforms in one."""
    count = layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(count)), float)
    matrix = np.eye(count + 1)
    axes = [np.asarray(layer.data_to_world(axis), float) - origin for axis in np.eye(count)]
    matrix[:count, :count] = np.column_stack(axes)
    matrix[:count, count] = origin
    return matrix


def placed_like(layer: "Layer", axes: Sequence[int] | None = None) -> dict[str, Any]:
    """Attributes that put another layer where this one is.

    Parameters
    ----------
    layer : Layer
    axes : sequence of int, optional
        Those of its axes that the other layer has; default: all.
    """
    kept = list(range(layer.ndim)) if axes is None else list(axes)
    with_offset = [*kept, layer.ndim]
    return {
        "affine": world_matrix(layer)[np.ix_(with_offset, with_offset)],
        "units": tuple(layer.units[axis] for axis in kept),
        "axis_labels": tuple(layer.axis_labels[axis] for axis in kept),
    }


def to_pixels(points: NDArray, objects: "Layer", image: "Layer") -> NDArray[np.float64]:
    """Carry coordinates of one layer to the pixels of an image.

    Parameters
    ----------
    points : ndarray, shape (n, objects.ndim)
    objects, image : Layer
        Their last axes are the same ones; of those that only the image has, the first step is taken.

    Returns
    -------
    ndarray of float64, shape (n, image.ndim)
    """
    world = np.column_stack([points, np.ones(len(points))]) @ world_matrix(objects).T
    common = min(objects.ndim, image.ndim)
    target = np.zeros((len(points), image.ndim + 1))
    target[:, image.ndim - common : image.ndim] = world[:, objects.ndim - common : objects.ndim]
    target[:, -1] = 1.0
    return (target @ np.linalg.inv(world_matrix(image)).T)[:, :-1]


def micrometres_per_pixel(image: "Image") -> float:
    """Side of a pixel in the plane of the image, micrometres.

    Raises
    ------
    InputError
        If the layer does not say so.
    """
    matrix = world_matrix(image)
    count = image.ndim
    sides = np.linalg.norm(matrix[:count, count - 2 : count], axis=0)
    try:
        unit = float((1 * image.units[-1]).to("micrometer").magnitude)
    except Exception as error:  # pint raises its own kinds
        raise InputError(
            f"'{image.name}' does not say how large its pixels are; set the scale and units of the "
            "layer, or give the size of the crops in pixels."
        ) from error
    return float(np.sqrt(sides.prod())) * unit
