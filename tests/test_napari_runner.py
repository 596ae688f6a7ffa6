"""Classifying layers on a viewer without a window, with the bundled model."""

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Layer

from wbc_batch.classifier import Classifier, Rejection
from wbc_batch.errors import ImageError, ModelError
from wbc_batch.synthetic import draw_cells, draw_field
from wbc_napari.appearance import points_layer
from wbc_napari.canonical import canonical_layer
from wbc_napari.crops import BATCH
from wbc_napari.layers import CropSize, crop_stack, crops_of, found_layer, whole_fields
from wbc_napari.runner import Plan, classify, find_cells, saying_why
from wbc_napari.tables import cell_table, with_results


@pytest.fixture(scope="module")
def crops():
    return draw_cells(BATCH + 8, seed=3, size=120)[0]


@pytest.fixture(scope="module")
def classifier():
    return Classifier.load(device="cpu")


def plan(crops, model="default"):
    return Plan(crops, np.arange(len(crops)), model, "cpu")


def run(data, **attributes):
    """Classify a new layer of a viewer; return the viewer, the layer and the steps."""
    viewer = ViewerModel()
    layer = viewer.add_image(data, name="slide", **attributes)
    return viewer, layer, list(classify(plan(crop_stack(layer))))


def probabilities(steps):
    parts = [step.predictions for step in steps if step.predictions is not None]
    return np.concatenate([part.probabilities for part in parts])


def table_of(layer, steps):
    table = cell_table(crop_stack(layer))
    for step in steps:
        with_results(table, step.rows, step.predictions, step.errors)
    return table


def test_a_layer_gets_what_the_classifier_says(crops, classifier):
    _, layer, steps = run(crops)
    assert [len(step.rows) for step in steps] == [0, BATCH, 8]
    assert steps[0].model["sha256"] == classifier.sha256
    expected = classifier.predict(crops)
    np.testing.assert_allclose(probabilities(steps), expected.probabilities, atol=1e-4)
    assert table_of(layer, steps)["label"].tolist() == expected.label.tolist()


def test_only_what_is_wanted_is_classified(crops, classifier):
    stack = crop_stack(ViewerModel().add_image(crops, name="slide"))
    wanted = np.array([3, 4, 70])
    steps = list(classify(Plan(stack, wanted, device="cpu")))
    assert np.concatenate([step.rows for step in steps]).tolist() == [3, 4, 70]
    expected = classifier.predict(crops[wanted]).probabilities
    np.testing.assert_allclose(probabilities(steps), expected, atol=1e-4)


def test_thresholds_of_ones_own_leave_cells_unidentified(crops):
    stack = crop_stack(ViewerModel().add_image(crops[:4], name="slide"))
    steps = list(classify(Plan(stack, np.arange(4), "default", "cpu", Rejection(1.1, 1.0))))
    assert set(steps[1].predictions.label) == {"unidentified"}
    assert steps[0].model["rejection"]["min_confidence"] == 1.1


def test_the_cells_of_a_field_are_found_and_classified():
    image, boxes, _ = draw_field(seed=0)
    viewer = ViewerModel()
    layer = viewer.add_image(image, rgb=True, name="field", scale=(0.5, 0.5))
    fields = whole_fields(layer)
    (found,) = find_cells(fields)
    assert len(found.boxes) == len(boxes)
    shapes = viewer.add_layer(Layer.create(*found_layer(layer, fields, {0: found.boxes})))
    crops = crops_of(layer, shapes, CropSize())
    assert crops.boxes.tolist() == found.boxes.tolist()
    *_, last = classify(plan(crops))
    assert len(last.predictions) == len(boxes)


def test_a_field_of_floats_is_refused_with_its_name():
    layer = ViewerModel().add_image(np.zeros((40, 60, 3), np.float32), rgb=True, name="field")
    with pytest.raises(ImageError, match=r"'field' cannot be searched for cells: .*float"):
        list(find_cells(whole_fields(layer)))


def test_a_field_that_cannot_be_read_costs_no_boxes_of_the_others():
    image, boxes, _ = draw_field(seed=0, width=640, height=480, leukocytes=3)

    def field(number):
        if number == 2:  # the canvas shows the one in the middle
            raise OSError("cut off")
        return image

    fields = [da.from_delayed(dask.delayed(field)(n), image.shape, np.uint8) for n in range(3)]
    layer = ViewerModel().add_image(da.stack(fields), rgb=True, name="series")
    found = list(find_cells(whole_fields(layer)))
    assert [len(step.boxes) for step in found] == [len(boxes), len(boxes), 0]
    assert ["cut off" in step.error for step in found] == [False, False, True]


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
    cells = table_of(layer, steps)
    viewer.add_layer(Layer.create(*points_layer(layer, crop_stack(layer), cells, steps[0].model)))
    points = viewer.layers["slide cells"]
    assert len(points.data) == BATCH + 8
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
        list(classify(plan(stack, str(tmp_path))))
    ending = end_of(saying_why(classify(plan(stack, str(tmp_path)))))
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
    np.testing.assert_array_equal(
        np.asarray(canonical.data[7]), classifier.prepare(crops[7]).pixels
    )
    # Corners (pixel edges) in the pixels of the stack: as high as a crop, a gap to its right.
    corners = np.array([[7, -0.5, -0.5], [7, side - 0.5, side - 0.5]])
    inside = [layer.world_to_data(canonical.data_to_world(corner)) for corner in corners]
    np.testing.assert_allclose(inside, [[7, -0.5, 125.5], [7, 119.5, 245.5]], atol=1e-6)
