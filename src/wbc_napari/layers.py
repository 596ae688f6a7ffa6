"""From layers to crops: a stack, or a field of view with points, boxes or labels on it.

Reads layers, changes none, and knows no Qt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points, Shapes
from numpy.typing import NDArray

from wbc_batch.errors import InputError
from wbc_napari.crop_array import CropArray
from wbc_napari.crops import Crops, CropStack, FieldCrops
from wbc_napari.geometry import micrometres_per_pixel, placed_like, to_pixels
from wbc_napari.images import (
    NO_IMAGE,
    colour_axis,
    full_resolution,
    overlay_axes,
    plane_axes,
    source_of,
    unnamed_colours,
)

__all__ = [
    "CropSize",
    "crop_stack",
    "crops_of",
    "field_crops",
    "found_layer",
    "is_listed",
    "positions",
    "whole_fields",
]

#: Above it ids of objects are large: few images have as many objects.
_LARGE_ID = 100_000


@dataclass(frozen=True)
class CropSize:
    """Side of the square that is cut around a point.

    Attributes
    ----------
    value : float
    micrometres : bool
        Else pixels of the image.
    """

    value: float = 100.0
    micrometres: bool = False

    def pixels(self, image: Image) -> float:
        """In pixels of an image; `InputError` where its layer has no scale in units of length."""
        return self.value / micrometres_per_pixel(image) if self.micrometres else self.value


def crops_of(image: Image | None, objects: Layer | None, size: CropSize) -> Crops:
    """Take an image as crops: a stack as it is, a field by what lies on it.

    Parameters
    ----------
    image : Image or None
    objects : Points, Shapes, Labels or None
        Centres, boxes or areas of cells; None for a stack of crops, or of those of a batch run.
    size : CropSize
        Of a crop around a point.

    Raises
    ------
    InputError
        If there is nothing to classify, or the shapes do not fit.
    """
    if objects is None:
        if image is not None and is_listed(image):
            return image.data.crops
        return crop_stack(image)
    return _field_of(image, objects, size)


def is_listed(image: Image) -> bool:
    """Whether an image shows listed crops, of a batch run or a packed store."""
    return isinstance(image.data, CropArray)


def crop_stack(layer: Image | None) -> CropStack:
    """Take an Image layer as a stack of crops, (N, Y, X) besides colours: a crop per step of the slider.

    Raises
    ------
    InputError
        If there is no layer, or its shape is not that of a stack of crops.
    """
    if layer is None:
        raise InputError(NO_IMAGE)
    data = full_resolution(layer)
    shape = tuple(int(side) for side in data.shape)
    colours = colour_axis(layer)
    spatial = len(shape) - (colours is not None)
    if spatial == 2:
        plane_axes(layer, colours)
        raise InputError(
            f"'{layer.name}' is a single image, not a stack of crops; press Find cells, or mark its cells "
            "on a Points, Shapes or Labels layer and choose that."
        )
    if spatial != 3:
        raise InputError(
            f"'{layer.name}' has the shape {shape}; a stack of crops has (N, Y, X, 3), "
            "or (N, Y, X) if grayscale."
        )
    if 0 in shape:
        raise InputError(f"'{layer.name}' is empty (shape {shape}); there is no crop to classify.")
    return CropStack(layer.name, source_of(layer), data, colours)


def _field_of(image: Image | None, objects: Layer, size: CropSize) -> FieldCrops:
    """Cut the cells that a Points, Shapes or Labels layer marks out of an image.

    Raises
    ------
    InputError
        If there is no image, nothing is marked, or the shapes do not fit.
    """
    if image is None:
        raise InputError(NO_IMAGE)
    if objects.ndim > image.ndim + (not image.rgb):
        raise InputError(
            f"'{objects.name}' has more dimensions than '{image.name}'; mark the cells on a new layer "
            "for this image."
        )
    if isinstance(objects, Labels):
        corners = _label_corners(objects)
    elif isinstance(objects, Shapes):
        corners = [(np.min(shape, axis=0), np.max(shape, axis=0)) for shape in objects.data]
    else:
        corners = [(point, point) for point in np.asarray(objects.data)]
    if not corners:
        raise InputError(f"'{objects.name}' is empty; mark the cells on it first.")
    pixels = to_pixels(np.array([point for pair in corners for point in pair]), objects, image)
    low = np.minimum(pixels[::2], pixels[1::2])
    high = np.maximum(pixels[::2], pixels[1::2])
    if isinstance(objects, Points):
        half = size.pixels(image) / 2
        low[:, -2:] -= half
        high[:, -2:] += half
    start, stop = _edges(low[:, -2:]), _edges(high[:, -2:])
    boxes = np.column_stack([start[:, ::-1], np.maximum(stop - start, 1)[:, ::-1]])
    leading = np.rint(low[:, :-2]).astype(np.int64)
    return field_crops(image, boxes, leading, tight=not isinstance(objects, Points))


def _edges(coordinates: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to edges of pixels: pixel i lies between i - 0.5 and i + 0.5."""
    return np.floor(coordinates + 0.5 + 1e-6).astype(np.int64)


def field_crops(
    image: Image, boxes: NDArray[np.int64], leading: NDArray[np.int64], tight: bool
) -> FieldCrops:
    """Boxes in the pixels of an image as crops.

    Parameters
    ----------
    image : Image
    boxes : ndarray of int64, shape (n, 4)
        x, y, width, height.
    leading : ndarray of int64, shape (n, k)
        Coordinates along the axes before the plane; of several, one that is not colours is used.
    tight : bool
        The boxes lie close around the cells, see `FieldCrops`.
    """
    colours, axes = _axes_of_fields(image)
    frames = leading[:, axes[0]] if len(axes) == 3 and leading.shape[1] else None
    if len(axes) == 3 and frames is None:
        frames = np.zeros(len(boxes), np.int64)
    data = full_resolution(image)
    return FieldCrops(image.name, source_of(image), data, boxes, frames, colours, tight)


def whole_fields(image: Image | None) -> FieldCrops:
    """Take an image as a field of view, or a stack of them: a box around all of each.

    Raises
    ------
    InputError
        If there is no image, or its shape is not that of fields.
    """
    if image is None:
        raise InputError(NO_IMAGE)
    colours, axes = _axes_of_fields(image)
    data = full_resolution(image)
    *leading, height, width = (int(data.shape[axis]) for axis in axes)
    count = leading[0] if leading else 1
    if 0 in (count, height, width):
        raise InputError(f"'{image.name}' is empty (shape {tuple(data.shape)}); it shows no cell.")
    boxes = np.tile(np.array([0, 0, width, height], np.int64), (count, 1))
    frames = np.arange(count) if leading else None
    return FieldCrops(image.name, source_of(image), data, boxes, frames, colours)


def _axes_of_fields(image: Image) -> tuple[int | None, list[int]]:
    """Axis of the colours, and those of the plane, with one of fields before them if there are several."""
    shape = tuple(int(side) for side in full_resolution(image).shape)
    colours = colour_axis(image)
    if unnamed_colours(image):
        colours = 0  # of a field, as opposed to a stack, three planes are its colours
    axes = plane_axes(image, colours)
    if len(axes) not in (2, 3):
        raise InputError(
            f"'{image.name}' has the shape {shape}; a field of view has (Y, X, 3), a stack of them "
            "(N, Y, X, 3)."
        )
    return colours, axes


def _label_corners(labels: Any) -> list[tuple[NDArray, NDArray]]:
    """First and last corner of each object, in the data coordinates of the Labels layer."""
    from scipy import ndimage

    data = np.asarray(full_resolution(labels))
    planes = data.reshape(-1, *data.shape[-2:])
    corners = []
    for number, plane in enumerate(planes):
        lead = np.unravel_index(number, data.shape[:-2]) if data.ndim > 2 else ()
        for found in ndimage.find_objects(_few_numbers(plane)):
            if found is None:
                continue
            low = np.array([found[0].start, found[1].start]) - 0.5
            high = np.array([found[0].stop, found[1].stop]) - 0.5
            corners.append((np.r_[lead, low], np.r_[lead, high]))
    return corners


def _few_numbers(plane: NDArray) -> NDArray:
    """Give objects with large ids small ones, from 1 and in the same order.

    `scipy.ndimage.find_objects` takes memory for each number up to the largest.
    """
    if plane.max(initial=0) <= _LARGE_ID:
        return plane
    inside = plane > 0
    numbers = np.zeros(plane.shape, np.intp)
    numbers[inside] = np.unique(plane[inside], return_inverse=True)[1] + 1
    return numbers


def positions(crops: CropStack | FieldCrops, image: Image) -> NDArray[np.float64]:
    """Centres of crops, (n, image.ndim), in the pixels of the image."""
    centres = np.zeros((len(crops), image.ndim))
    if isinstance(crops, CropStack):
        height, width = crops.size
        centres[:, -2:] = (height - 1) / 2, (width - 1) / 2
        centres[:, crops.axis] = np.arange(len(crops))
        return centres
    x, y, width_, height_ = crops.boxes.T
    centres[:, -2] = y + (height_ - 1) / 2
    centres[:, -1] = x + (width_ - 1) / 2
    if crops.frames is not None:
        centres[:, plane_axes(image, crops.colours)[0]] = crops.frames
    return centres


def found_layer(
    image: Image, fields: FieldCrops, found: Mapping[int, NDArray[np.int64]]
) -> tuple[Any, dict[str, Any], str]:
    """Describe a Shapes layer of the boxes that were found in fields of view.

    Parameters
    ----------
    image : Image
    fields : FieldCrops
        As `whole_fields` returns them.
    found : mapping of int to ndarray of int64, shape (n, 4)
        By the number of the field: x, y, width, height, pixels.
    """
    colours, planes = _axes_of_fields(image)
    axes = overlay_axes(image, colours)
    boxes = np.concatenate(list(found.values()))
    left, top = boxes[:, 0] - 0.5, boxes[:, 1] - 0.5
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    corners = np.stack(
        [
            np.column_stack(corner)
            for corner in ((top, left), (top, right), (bottom, right), (bottom, left))
        ],
        axis=1,
    )
    if fields.frames is not None:
        leading = np.zeros((len(boxes), 4, len(axes) - 2))
        numbers = np.repeat(list(found), [len(part) for part in found.values()])
        leading[..., axes.index(planes[0])] = numbers[:, np.newaxis]
        corners = np.concatenate([leading, corners], axis=2)
    attributes = {
        "name": f"{image.name} cells",
        "shape_type": "rectangle",
        "face_color": "transparent",
        "edge_color": "#444444",
        "edge_width": 0.02 * float(np.median(boxes[:, 2:])),
        **placed_like(image, axes),
    }
    return list(corners), attributes, "shapes"
