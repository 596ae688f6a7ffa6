"""What an Image layer holds: which of its axes are colours, and which file it came from."""

from typing import TYPE_CHECKING, Any

from wbc_batch.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image

__all__ = [
    "NO_IMAGE",
    "colour_axis",
    "full_resolution",
    "known_by",
    "overlay_axes",
    "plane_axes",
    "remember_source",
    "source_of",
    "unnamed_colours",
]

NO_IMAGE = (
    "There is no image to classify; open a stack of crops (N, Y, X, 3) or a field of view, or try "
    "File > Open Sample > White blood cells."
)

#: Key in the metadata of a layer.
_SOURCE = "wbc_napari_source"

_COLOUR_LABELS = {"c", "ch", "channel", "channels", "rgb", "rgba"}
_COLOURS = (3, 4)


def full_resolution(layer: "Image") -> Any:
    """Return the array, of a pyramid the largest level."""
    return layer.data[0] if layer.multiscale else layer.data


def source_of(layer: "Image") -> str:
    """Return the file that the layer came from, else its name, or the one that was remembered."""
    return str(layer.source.path or layer.metadata.get(_SOURCE) or layer.name)


def remember_source(layer: "Image") -> None:
    """Keep what identifies its cells as it is, whatever name the layer gets."""
    layer.metadata[_SOURCE] = source_of(layer)


def known_by(layer: "Image") -> dict[str, Any]:
    """Return what a layer is known by when its image is opened again: file or name, and shape."""
    return {
        "source": source_of(layer),
        "shape": [int(side) for side in full_resolution(layer).shape],
    }


def colour_axis(layer: "Image") -> int | None:
    """Return the number of the axis that holds colours; None where there is none.

    An RGB layer says so. Else the axis is one with a name of colours; else, of four axes, one before the
    last two that has three or four steps; else, of three or four, the last one, if it has: nothing else is
    as narrow.
    """
    shape = tuple(int(side) for side in full_resolution(layer).shape)
    if layer.rgb:
        return len(shape) - 1
    for axis, label in enumerate(layer.axis_labels):
        if str(label).lower() in _COLOUR_LABELS and shape[axis] in _COLOURS:
            return axis
    for axis in {3: (2,), 4: (1, 0, 3)}.get(len(shape), ()):
        if shape[axis] in _COLOURS:
            return axis
    return None


def unnamed_colours(layer: "Image") -> bool:
    """Whether a layer that may be one picture has three or four planes, and does not say what they are."""
    shape = full_resolution(layer).shape
    # Names that napari gives itself: "-3", "axis -3" or "axis 0", depending on its version.
    unnamed = str(layer.axis_labels[0]).removeprefix("axis ").removeprefix("-").isdigit()
    return colour_axis(layer) is None and len(shape) == 3 and shape[0] in _COLOURS and unnamed


def plane_axes(layer: "Image", colours: int | None) -> list[int]:
    """Axes of the layer that are not colours.

    Raises
    ------
    InputError
        If colours come last in a layer that is not shown as RGB: no other layer would lie on it.
    """
    if not layer.rgb and colours == layer.ndim - 1:
        raise InputError(
            f"'{layer.name}' has its colors in the last axis but is not shown as RGB; open it as RGB."
        )
    return [axis for axis in range(layer.ndim) if axis != colours or layer.rgb]


def overlay_axes(layer: "Image", colours: int | None) -> list[int]:
    """Axes that a layer of cells on the image has.

    Layers of fewer axes lie on the last ones (napari aligns them so): colours before all others can be
    left out, colours between them cannot.
    """
    axes = plane_axes(layer, colours)
    return axes if axes == list(range(axes[0], layer.ndim)) else list(range(layer.ndim))
