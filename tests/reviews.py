"""Crops that a model has classified, as tests of reviews need them, without a model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Layer

from wbc_batch.schema import CLASSES
from wbc_napari.appearance import points_layer
from wbc_napari.crops import Crops
from wbc_napari.layers import crop_stack
from wbc_napari.tables import cell_table

MODEL = {"name": "m", "sha256": "ab" * 32, "device": "cpu", "preprocessing": {}}


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Make crops that no two of are alike."""
    return np.random.default_rng(seed).integers(0, 255, (count, 40, 40, 3)).astype(np.uint8)


def classified(
    crops: Crops,
    labels: str | Sequence[str] = "monocyte",
    confidence: float | Sequence[float] = 0.9,
) -> pd.DataFrame:
    """Return the table of crops as a model would leave it; few labels are said again and again."""
    table = cell_table(crops)
    table["status"] = "ok"
    table["label"] = table["predicted"] = np.resize(np.array(labels, object), len(crops))
    table["confidence"] = np.resize(np.array(confidence, np.float32), len(crops))
    table["margin"] = table["confidence"] / 2
    table["novelty"] = 1 - table["confidence"]
    for name in CLASSES:
        rest = (1 - table["confidence"]) / (len(CLASSES) - 1)
        table[f"prob_{name}"] = table["confidence"].where(table["label"] == name, rest)
    return table


def add_cells(
    viewer: ViewerModel,
    pixels: np.ndarray,
    labels: str | Sequence[str] = "monocyte",
    confidence: float | Sequence[float] = 0.9,
    name: str = "slide",
) -> Layer:
    """Show a stack of crops and its classified cells; return the layer of the cells."""
    image = viewer.add_image(pixels, rgb=True, name=name)
    crops = crop_stack(image)
    data = points_layer(image, crops, classified(crops, labels, confidence), MODEL)
    return viewer.add_layer(Layer.create(*data))
