"""Which layers belong together: an image, the layer of its cells, what earlier runs added."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels, Layer, Points

from wbc_batch.errors import InputError
from wbc_batch.schema import BOX_COLUMNS
from wbc_napari.batch_run import listed_crops
from wbc_napari.blinding import whole_table
from wbc_napari.crops import Crops
from wbc_napari.images import colour_axis, known_by
from wbc_napari.layers import CropSize, crop_stack, crops_of, field_crops, is_listed
from wbc_napari.marks import has_results, mark_of
from wbc_napari.tables import PENDING, cell_table, without_results

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from wbc_batch.classifier.predictions import Rejection

__all__ = [
    "adopt_reopened",
    "cells_layers",
    "classified_by",
    "companion",
    "crops_behind",
    "extent",
    "has_pixels",
    "image_of",
    "results_of",
    "take_up_new_marks",
]


def cells_layers(viewer: "ViewerModel") -> list[Layer]:
    """Layers that carry results."""
    return [layer for layer in viewer.layers if has_results(layer)]


def image_of(viewer: "ViewerModel", cells: Layer) -> Image | None:
    """Return the image whose cells a layer shows."""
    mark = mark_of(cells)
    for layer in viewer.layers:
        if not isinstance(layer, Image):
            continue
        run = mark_of(layer).get("run")
        if layer.unique_id == mark.get("image") or (run and run == mark.get("run")):
            return layer
    return None


def has_pixels(viewer: "ViewerModel", cells: Layer) -> bool:
    """Whether the cells of a layer can be seen: those of a run lie in its files, others in an open image."""
    return "run" in mark_of(cells) or image_of(viewer, cells) is not None


def adopt_reopened(viewer: "ViewerModel") -> None:
    """Give layers of cells whose image was closed that image, where it is open again."""
    for cells in cells_layers(viewer):
        mark = mark_of(cells)
        if has_pixels(viewer, cells):
            continue
        for layer in viewer.layers:
            if isinstance(layer, Image) and known_by(layer) == mark.get("known_by"):
                mark["image"] = layer.unique_id


def take_up_new_marks(viewer: "ViewerModel", cells: Layer) -> None:
    """Make cells of marks that were drawn or pasted: napari gives their rows what another row says."""
    mark, table = mark_of(cells), cells.features
    ids = table["cell_id"].fillna("")
    new = ((ids == "") | ids.duplicated()).to_numpy()
    if not new.any():
        return
    image, fresh = image_of(viewer, cells), without_results(table)
    if mark.get("own") and image is not None:
        made = cell_table(crops_of(image, cells, CropSize(mark["side"])))
        fresh[made.columns] = made
    else:
        fresh["cell_id"] = ""
    table.loc[new, fresh.columns] = fresh.loc[new]
    cells.features = table


def crops_behind(viewer: "ViewerModel", cells: Layer) -> Crops:
    """Return the crops of a layer of cells, in the order of its rows.

    Raises
    ------
    InputError
        If the image that they were cut from is no longer open.
    """
    mark, table = mark_of(cells), whole_table(cells)
    if "run" in mark:
        return listed_crops(cells.name, table, Path(mark["base"]) if mark["base"] else None)
    image = image_of(viewer, cells)
    if image is None:
        raise InputError(f"The image of '{cells.name}' is no longer open; open it again.")
    if set(BOX_COLUMNS) <= set(table.columns):
        boxes = table[list(BOX_COLUMNS)].fillna(0).to_numpy(np.int64)
        leading = np.zeros((len(table), max(image.ndim - 2, 0)), np.int64)
        colours = colour_axis(image)
        frame_axes = [axis for axis in range(image.ndim - 2) if image.rgb or axis != colours]
        if frame_axes and not table["index"].isna().any():
            leading[:, frame_axes[0]] = table["index"]
        squares_of_the_user = isinstance(cells, Points) and mark.get("own", False)
        return field_crops(image, boxes, leading, tight=not squares_of_the_user)
    return crop_stack(image)


def companion(
    viewer: "ViewerModel", image: Image, kind: type[Layer], marks: Labels | None = None
) -> Layer | None:
    """Return the layer, of type `kind`, that an earlier run added to an image, or to the marks on it."""
    for layer in viewer.layers:
        mark = mark_of(layer)
        mine = mark.get("image") == image.unique_id and not mark.get("own")
        mine = mine and mark.get("marks") == (None if marks is None else marks.unique_id)
        if mine and isinstance(layer, kind):
            return layer
    return None


def results_of(viewer: "ViewerModel", image: Image | None, marks: Layer | None) -> Layer | None:
    """Return the layer with the results of an image, or of the cells that are marked on it.

    The user's own Points and Shapes carry their results themselves.
    """
    if marks is not None and not isinstance(marks, Labels):
        return marks if has_results(marks) else None
    if image is None or not is_listed(image):
        return None if image is None else companion(viewer, image, Points, marks)
    # Two layers may show the same listed crops, of which `image_of` knows the first.
    run = mark_of(image).get("run", "")
    return next((cells for cells in cells_layers(viewer) if mark_of(cells).get("run") == run), None)


def classified_by(cells: Layer | None, model: str, rejection: "Rejection | None") -> bool:
    """Whether the results of a layer are those of a model and a rule of rejection (None: the model's own).

    Raises
    ------
    ModelError
        If there are results, and the model cannot be read.
    """
    if cells is None:
        return False
    from wbc_batch.classifier import read_bundle

    known, bundle = mark_of(cells)["model"], read_bundle(model)
    rule = rejection or bundle.rejection
    return known.get("sha256") == bundle.sha256 and known.get("rejection") == vars(rule)


def extent(image: Image | None, marks: Layer | None, results: Layer | None) -> tuple[int, int]:
    """Return how many cells are classified, and how many there are; 0 where that is not known yet."""
    if results is not None:
        return int((results.features["status"] != PENDING).sum()), len(results.features)
    if marks is not None:
        return 0, len(marks.data) if not isinstance(marks, Labels) else 0
    try:
        return 0, len(crop_stack(image))
    except InputError:  # told when it is to be classified
        return 0, 0
