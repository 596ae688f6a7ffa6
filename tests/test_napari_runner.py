"""Classifying layers on a viewer without a window, with the bundled model."""

import importlib.util

import dask.array as da
import numpy as np
import pytest
import zarr

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from napari.components import ViewerModel
from napari.layers import Layer

from wbc_batch.classifier import Classifier
from wbc_batch.errors import ImageError, ModelError
from wbc_batch.schema import PROBABILITY_COLUMNS
from wbc_batch.synthetic import draw_cells
from wbc_napari.canonical import canonical_layer
from wbc_napari.layers import BATCH, crop_stack, points_layer
from wbc_napari.runner import classify_stack, saying_why


@pytest.fixture(scope="module")
def crops():
    return draw_cells(BATCH + 8, seed=3, size=120)[0]


@pytest.fixture(scope="module")
def classifier():
    return Classifier.load(device="cpu")


def run(data, **attributes):
    """Classify a new layer of a viewer; return the viewer, the layer and the steps."""
    viewer = ViewerModel()
    layer = viewer.add_image(data, name="slide", **attributes)
    return viewer, layer, list(classify_stack(crop_stack(layer), "default", "cpu"))


def probabilities(steps):
    tables = [step.cells for step in steps if step.cells is not None]
    return np.concatenate([table[list(PROBABILITY_COLUMNS)].to_numpy() for table in tables])


def test_a_layer_gets_what_the_classifier_says(crops, classifier):
    _, _, steps = run(crops)
    assert [None if s.cells is None else len(s.cells) for s in steps] == [None, BATCH, 8]
    assert steps[0].model["sha256"] == classifier.sha256
    expected = classifier.predict(crops).probabilities
    np.testing.assert_allclose(probabilities(steps), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_arrays_give_the_same(kind, crops, classifier, tmp_path):
    chunks = (16, *crops.shape[1:])
    if kind == "dask":
        data = da.from_array(crops, chunks=chunks)
    else:
        data = zarr.create_array(tmp_path / "crops.zarr", data=crops, chunks=chunks)
    _, _, steps = run(data, rgb=True)
    expected = classifier.predict(crops).probabilities
    np.testing.assert_allclose(probabilities(steps), expected, atol=1e-4)


def test_the_results_become_a_layer_of_the_viewer(crops):
    viewer, layer, steps = run(crops)
    cells = steps[1].cells
    viewer.add_layer(Layer.create(*points_layer(layer, crop_stack(layer), cells, steps[0].model)))
    points = viewer.layers["slide cells"]
    assert len(points.data) == BATCH
    viewer.dims.set_point(0, 5)
    assert points._view_data.tolist() == [[59.5, 59.5]]


def test_16_bit_and_grey_follow_the_rule_of_the_classifier(crops, classifier):
    few = crops[:4]
    wide = few.astype(np.uint16) * 16
    _, _, steps = run(wide, rgb=True)
    np.testing.assert_allclose(
        probabilities(steps), classifier.predict(list(wide)).probabilities, atol=1e-4
    )
    grey = few[..., 1]
    _, _, steps = run(grey, rgb=False)
    np.testing.assert_allclose(
        probabilities(steps), classifier.predict(list(grey)).probabilities, atol=1e-4
    )


def test_floats_are_refused_with_the_reason_of_the_classifier(crops):
    with pytest.raises(ImageError, match=r"'slide' cannot be classified: .*float"):
        run(crops[:3] / 255.0, rgb=True)


def test_a_model_that_is_none_is_told_in_one_sentence(crops, tmp_path):
    stack = crop_stack(ViewerModel().add_image(crops))
    with pytest.raises(ModelError):
        list(classify_stack(stack, str(tmp_path), "cpu"))
    ending = end_of(saying_why(classify_stack(stack, str(tmp_path), "cpu")))
    assert str(tmp_path) in ending
    assert "\n" not in ending


def test_a_runtime_error_ends_a_run_with_a_sentence():
    def steps():
        yield 1
        raise RuntimeError("CUDA out of memory")

    assert end_of(saying_why(steps())) == "The run ended early: CUDA out of memory"
    assert end_of(saying_why(iter([1, 2]))) == ""


def end_of(generator):
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def test_canonical_crops_stand_right_of_the_crops(crops, classifier):
    viewer = ViewerModel()
    layer = viewer.add_image(crops, name="slide", scale=(1, 2, 2), translate=(0, 7, 9), rotate=20)
    canonical = viewer.add_layer(
        Layer.create(*canonical_layer(layer, crop_stack(layer), classifier))
    )
    side = classifier.input_size
    assert canonical.data.shape == (BATCH + 8, side, side, 3)
    np.testing.assert_array_equal(np.asarray(canonical.data[7]), classifier.prepare(crops[7]))
    # Corners (pixel edges) in the pixels of the stack: as high as a crop, a gap to its right.
    corners = np.array([[7, -0.5, -0.5], [7, side - 0.5, side - 0.5]])
    inside = [layer.world_to_data(canonical.data_to_world(corner)) for corner in corners]
    np.testing.assert_allclose(inside, [[7, -0.5, 125.5], [7, 119.5, 245.5]], atol=1e-6)
