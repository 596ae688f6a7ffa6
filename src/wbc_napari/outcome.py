"""What comes of a run of "Classify": layers in the viewer, new or brought up to date."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Layer, Points
from numpy.typing import NDArray

from wbc_batch.errors import InputError
from wbc_batch.schema import STATUS_ERROR
from wbc_napari.appearance import dress, points_layer, repaint
from wbc_napari.batch_run import listed_points
from wbc_napari.canonical import canonical_layer
from wbc_napari.companions import companion, results_of
from wbc_napari.crops import Crops, CropStack, FieldCrops
from wbc_napari.images import full_resolution, remember_source, unnamed_colours
from wbc_napari.layers import CropSize, crops_of, found_layer, is_listed
from wbc_napari.marks import LayerData, mark_of
from wbc_napari.notices import show_warning
from wbc_napari.tables import PENDING, cell_table, resumed, review_of_other_size

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Run", "guess_of_colours", "put_boxes", "put_canonical", "put_results"]


@dataclass(eq=False)
class Run:
    """What is under way: on which layers, and what came of it so far.

    Attributes
    ----------
    image : Image
    marks : Layer or None
        The layer that marks the cells.
    name : str
        Of the crops or fields.
    size : CropSize
        Of the square around a point, as it was chosen at the start.
    finish : callable
        To be called with the run when it has ended.
    stop : callable
        Asks it to end after the step that it is in.
    crops : Crops
        The cells, or the fields that are searched.
    table : DataFrame
        The cells, with what is known of them by now.
    wanted : ndarray of int
        The cells to classify.
    steps : list
        What the runner has yielded.
    trouble, note : str
        Why it ended early; else what the user should know.
    """

    image: Image
    marks: Layer | None
    name: str
    size: CropSize
    finish: Callable[["Run"], None]
    stop: Callable[[], None]
    crops: Crops | None = None
    table: pd.DataFrame | None = None
    wanted: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    steps: list[Any] = field(default_factory=list)
    trouble: str = ""
    note: str = ""


def put_results(viewer: "ViewerModel", run: Run) -> Layer | None:
    """Put what was classified on the user's own marks, or on a layer of cells; None where nothing was."""
    table, crops = run.table, run.crops
    if not any(len(step.rows) for step in run.steps) or table is None or crops is None:
        return None
    model = run.steps[0].model
    if run.marks is not None and not isinstance(run.marks, Labels):
        # Marks may have been drawn, moved or deleted meanwhile: results go where their cells are now.
        table = resumed(cell_table(crops_of(run.image, run.marks, run.size)), table, True)
        if isinstance(run.marks, Points):
            table = review_of_other_size(table, run.marks.features)
        left = int((table["status"] == PENDING).sum())
        if left and not run.trouble and len(run.steps) > len(crops.batches(run.wanted)):
            run.note = f"{left} cells were marked during the run; press Classify again."
        dress(run.marks, table, run.image, model, run.size.pixels(run.image))
        layer = run.marks
    else:
        if is_listed(run.image):
            data = listed_points(run.image.data, mark_of(run.image), table, model)
        else:
            assert isinstance(crops, CropStack | FieldCrops)
            data = points_layer(run.image, crops, table, model, run.marks)
        layer = _replace(viewer, results_of(viewer, run.image, run.marks), data)
    failed = table[table["status"] == STATUS_ERROR]
    if len(failed):
        show_warning(
            f"{len(failed)} of {len(table)} crops could not be classified; "
            f"the first is crop {failed.index[0]}: {failed['error'].iloc[0]}."
        )
    if not is_listed(run.image):
        remember_source(run.image)
    return layer


def put_boxes(viewer: "ViewerModel", run: Run) -> Layer | None:
    """Add the boxes that were found as a layer; None where a search that ended early has found none.

    Raises
    ------
    InputError
        If all fields were searched, and there is no leukocyte in them.
    """
    fields = run.crops
    assert isinstance(fields, FieldCrops)
    found = {step.field: step.boxes for step in run.steps}
    stopped = len(found) < len(fields)
    if stopped:
        run.note = f"Stopped; {len(found)} of {len(fields)} fields were searched."
    failed = [step for step in run.steps if step.error]
    if failed and not run.trouble:
        show_warning(
            f"{len(failed)} of {len(fields)} fields could not be read; "
            f"the first is field {failed[0].field} of the slider: {failed[0].error}."
        )
    if not any(len(boxes) for boxes in found.values()):
        if not stopped and not run.trouble:
            raise InputError(f"No leukocyte was found in '{run.name}'; mark the cells by hand.")
        return None
    return viewer.add_layer(Layer.create(*found_layer(run.image, fields, found)))


def put_canonical(viewer: "ViewerModel", run: Run) -> None:
    """Show the canonical crops beside the stack, if the model was loaded."""
    for classifier in run.steps:
        assert run.crops is not None
        data = canonical_layer(run.image, run.crops, classifier)
        _replace(viewer, companion(viewer, run.image, Image), data)
        viewer.reset_view()


def _replace(viewer: "ViewerModel", old: Layer | None, data: LayerData) -> Layer:
    """Add a layer; one from an earlier run takes over what is new of the same cells, or makes room."""
    places, attributes, _ = data
    if isinstance(old, Points) and np.array_equal(old.data, places):
        old.features = attributes["features"]
        old.metadata = attributes["metadata"]
        repaint(old)
        return old
    if old is not None:
        viewer.layers.remove(old)
    return viewer.add_layer(Layer.create(*data))


def guess_of_colours(run: Run) -> str:
    """Say that planes were taken for colours, where the image does not tell; "" where it does."""
    if not isinstance(run.crops, FieldCrops) or not unnamed_colours(run.image):
        return ""
    return (
        f"The {len(full_resolution(run.image))} planes of '{run.image.name}' were taken as the colors of "
        "one image; if they are fields, name the axes of the layer: axis_labels = ('t', 'y', 'x')."
    )
