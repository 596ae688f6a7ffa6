"""File > Open Sample: drawn cells, so that everything can be tried without a slide at hand."""

from typing import Any

from wbc_batch.synthetic import draw_cells, draw_field

__all__ = ["drawn_crops", "drawn_field"]

LayerData = tuple[Any, dict[str, Any], str]


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
    """Draw a field of view of a smear; classes and boxes of its leukocytes are in the metadata."""
    field, boxes, labels = draw_field(seed=0)
    drawn = {"drawn": labels, "boxes": boxes}
    attributes = {"name": "Drawn smear field", "rgb": True, "metadata": drawn}
    return [(field, attributes, "image")]
