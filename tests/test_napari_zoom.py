"""Captions of cells in a field of view, on a viewer without a window."""

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

from wbc_napari.zoom import LEAST_PIXELS, camera, show_captions

BOXES = pd.DataFrame({"x": [0, 50], "y": [0, 50], "width": 40, "height": 40})
MARK = {"wbc_napari": {"model": {}}}


@pytest.mark.parametrize("kind", ["points", "shapes"])
def test_captions_are_shown_where_cells_are_large_on_the_screen(kind):
    viewer = ViewerModel()
    attributes = {"features": BOXES, "metadata": MARK, "scale": (0.5, 0.5), "text": {"string": "a"}}
    if kind == "points":
        layer = viewer.add_points(np.zeros((2, 2)), size=40, **attributes)
    else:
        box = np.array([[0, 0], [0, 40], [40, 40], [40, 0]])
        layer = viewer.add_shapes([box, box + 50], shape_type="rectangle", **attributes)
    enough = LEAST_PIXELS / (40 * 0.5)
    for zoom, shown in ((0.9 * enough, False), (1.1 * enough, True)):
        camera(viewer).zoom = zoom
        show_captions(viewer)
        assert layer.text.visible == shown


def test_crops_of_a_stack_and_other_layers_keep_theirs():
    viewer = ViewerModel()
    viewer.add_points(np.zeros((2, 2)), text={"string": "a"}, features=BOXES)
    viewer.add_points(np.zeros((2, 3)), text={"string": "a"}, metadata=MARK)
    camera(viewer).zoom = 0.01
    show_captions(viewer)
    assert all(layer.text.visible for layer in viewer.layers)
