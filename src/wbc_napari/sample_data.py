"""File > Open Sample: drawn cells, so that everything can be tried without a slide at hand."""

from wbc_batch.synthetic import draw_cells, draw_field
from wbc_napari.marks import LayerData

__all__ = ["drawn_crops", "drawn_field"]

#: Of the drawn field, pixels and cells.
_FIELD = {"width": 1280, "height": 960, "leukocytes": 10}


def drawn_crops() -> list[LayerData]:
    """Draw a stack of 60 crops; the classes that were drawn are in the layer's metadata."""
    crops, labels = draw_cells(60)
    attributes = {
        "name": "Drawn crops",
        "rgb": True,
        "axis_labels": ("cell", "y", "x"),
        "metadata": {"drawn": labels},
    }
    return [(crops, attributes, "image")]


def drawn_field() -> list[LayerData]:
    """Draw a field of view of a smear, and a point on each of its leukocytes.

    Classes and boxes are in the metadata of the image. The points are hidden: Find cells does without.
    """
    field, boxes, labels = draw_field(seed=0, **_FIELD)
    image = {
        "name": "Drawn smear field",
        "rgb": True,
        "metadata": {"drawn": labels, "boxes": boxes},
    }
    points = {
        "name": "Drawn smear field leukocytes",
        "face_color": "transparent",
        "border_color": "black",
        "size": 30,
        "visible": False,
    }
    centres = boxes[:, 1::-1] + (boxes[:, :1:-1] - 1) / 2
    return [(field, image, "image"), (centres, points, "points")]
