"""Layers to crops and predictions to layers, without a window."""

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes

from wbc_batch.classifier import Predictions
from wbc_batch.errors import ImageError, InputError
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELL_COLUMNS,
    CLASS_COLORS,
    CLASSES,
    ERROR_COLOR,
    REVIEW_COLUMNS,
)
from wbc_batch.sources import Cell
from wbc_napari.appearance import captions, dress, points_layer
from wbc_napari.companions import crops_behind
from wbc_napari.layers import CropSize, crop_stack, crops_of, found_layer, whole_fields
from wbc_napari.tables import cell_table, resumed, with_results

MODEL = {"name": "m", "sha256": "0" * 64, "device": "cpu"}


def stack_layer(n: int = 3, **attributes) -> Image:
    return Image(np.zeros((n, 40, 60, 3), np.uint8), **{"rgb": True, "name": "slide"} | attributes)


def predictions(*classes: str) -> Predictions:
    at = [CLASSES.index(name) for name in classes]
    probabilities = np.full((len(at), 5), 0.05, np.float32)
    probabilities[np.arange(len(at)), at] = 0.8
    names = np.array(classes)
    number = np.full(len(at), 0.8, np.float32)
    return Predictions(probabilities, names, names, number, number - 0.05, number * 0)


class Lazy:
    """An array that remembers what was asked of it."""

    def __init__(self, data: np.ndarray, chunks: object = None) -> None:
        self.data, self.read = data, []
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, key):
        self.read.append(key)
        return self.data[key]


def results(crops, *classes: str, errors: dict[int, str] | None = None) -> pd.DataFrame:
    """Return the table of crops, all of them classified."""
    table = cell_table(crops)
    said = predictions(*classes) if classes else None
    with_results(table, np.arange(len(crops)), said, errors or {})
    return table


# --- stacks ---


def test_a_stack_of_crops_is_read_in_slices_only():
    data = Lazy(np.arange(4 * 40 * 60 * 3, dtype=np.uint8).reshape(4, 40, 60, 3))
    layer = Image(data, rgb=True, name="slide")
    data.read.clear()
    stack = crop_stack(layer)
    assert (len(stack), stack.size, data.read) == (4, (40, 60), [])
    np.testing.assert_array_equal(list(stack.read([1, 2])), data.data[1:3])
    assert data.read == [slice(1, 3)]


@pytest.mark.parametrize("shape", [(5, 40, 60, 4), (5, 40, 60)], ids=["rgba", "grey"])
def test_colour_with_opacity_and_grey_are_stacks_too(shape):
    stack = crop_stack(Image(np.zeros(shape, np.uint8), rgb=len(shape) == 4))
    assert (len(stack), stack.size) == (5, (40, 60))


@pytest.mark.parametrize("axis", [0, 1])
def test_colours_may_lie_along_an_axis_of_their_own(axis):
    crops = np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3)).astype(np.uint8)
    stack = crop_stack(Image(np.moveaxis(crops, -1, axis)))
    assert (len(stack), stack.size) == (5, (40, 60))
    np.testing.assert_array_equal(list(stack.read([1, 2, 4])), crops[[1, 2, 4]])


def test_of_a_pyramid_the_full_resolution_is_classified():
    levels = [np.zeros((5, 80, 80, 3), np.uint8), np.zeros((5, 40, 40, 3), np.uint8)]
    stack = crop_stack(Image(levels, rgb=True, multiscale=True))
    assert (len(stack), stack.size) == (5, (80, 80))


@pytest.mark.parametrize(
    ("chunks", "spans"),
    [
        (None, [(0, 64), (64, 128), (128, 134)]),
        (((50, 50, 34), (40,), (60,), (3,)), [(0, 50), (50, 100), (100, 134)]),  # as dask says it
        ((10, 40, 60, 3), [(0, 60), (60, 120), (120, 134)]),  # as zarr says it
        ((100_000, 40, 60, 3), [(0, 64), (64, 128), (128, 134)]),
    ],
)
def test_batches_follow_the_chunks_of_the_array(chunks, spans):
    data = Lazy(np.zeros((134, 40, 60, 3), np.uint8), chunks)
    batches = crop_stack(Image(data, rgb=True)).batches(np.arange(134))
    assert [(int(batch[0]), int(batch[-1]) + 1) for batch in batches] == spans


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (None, "There is no image to classify"),
        (
            Image(np.zeros((40, 60, 3), np.uint8), rgb=True, name="field"),
            "'field' is a single image",
        ),
        (Image(np.zeros((40, 60), np.uint8), name="grey"), "'grey' is a single image"),
        (Image(np.zeros((2, 2, 4, 40, 60), np.uint8), name="5-D"), "'5-D' has the shape"),
        (Image(np.zeros((2, 4, 40, 60, 3), np.uint8), rgb=True), "has the shape"),
        (Image(np.zeros((0, 40, 60, 3), np.uint8), rgb=True, name="none"), "'none' is empty"),
    ],
    ids=["nothing", "rgb picture", "grey picture", "5-D", "4-D rgb", "empty"],
)
def test_what_is_no_stack_of_crops_is_refused_in_one_sentence(layer, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        crop_stack(layer)
    assert "\n" not in str(caught.value)


# --- fields of view ---


@pytest.fixture
def field():
    """A field of noise, 0.1 um per pixel, put somewhere in the world."""
    data = np.random.default_rng(1).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    return Image(data, rgb=True, name="field", scale=(0.1, 0.1), translate=(5, 7), units="um")


@pytest.mark.parametrize("size", [CropSize(40), CropSize(4, micrometres=True)], ids=["px", "um"])
def test_points_are_centres_of_squares(field, size):
    points = Points([[5 + 10, 7 + 5]], units="um")  # pixel (100, 50)
    crops = crops_of(field, points, size)
    assert crops.boxes.tolist() == [[30, 80, 40, 40]]
    np.testing.assert_array_equal(next(crops.read([0])), field.data[80:120, 30:70])
    assert crops.cell(0).member == "#xywh=30,80,40,40"


def test_shapes_are_boxes_in_pixels_read_with_room_around_them_and_cut_at_the_rim(field):
    corners = [[5 - 2, 7 + 1], [5 - 2, 7 + 3], [5 + 4, 7 + 3], [5 + 4, 7 + 1]]
    crops = crops_of(field, Shapes([np.array(corners)], shape_type="rectangle"), CropSize())
    assert crops.boxes.tolist() == [[10, -20, 20, 60]]  # 15 % of 60 pixels around it
    np.testing.assert_array_equal(next(crops.read([0])), field.data[0:49, 1:39])


def test_labels_give_a_crop_per_object(field):
    data = np.zeros((200, 300), int)
    data[50:90, 100:130], data[150:160, 20:30] = 3, 8
    labels = Labels(data, scale=(0.1, 0.1), translate=(5, 7))
    crops = crops_of(field, labels, CropSize())
    assert crops.boxes.tolist() == [[100, 50, 30, 40], [20, 150, 10, 10]]
    np.testing.assert_array_equal(next(crops.read([0])), field.data[44:96, 94:136])


@pytest.mark.parametrize(
    "first", [4, 2**45]
)  # a number for each id up to the largest needs no memory
def test_ids_of_labels_may_be_large(field, first):
    data = np.zeros((2, 200, 300), int)
    data[0, 50:90, 100:130], data[0, 150:160, 20:30] = first + 5, first
    data[1, :10, :10], data[1, 100:, 200:] = first, -1
    fields = Image(np.stack([field.data] * 2), rgb=True)
    crops = crops_of(fields, Labels(data), CropSize())
    assert crops.boxes.tolist() == [[20, 150, 10, 10], [100, 50, 30, 40], [0, 0, 10, 10]]
    assert crops.frames.tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["points", "shapes", "labels"])
def test_a_review_reads_the_crops_that_were_classified(field, kind):
    viewer = ViewerModel()
    viewer.add_layer(field)
    box = np.array([[8, 10], [8, 12], [10, 12], [10, 10]], float)
    marks = {
        "points": lambda: Points([[10, 12], [20, 15]]),
        "shapes": lambda: Shapes([box, box + 4], shape_type="rectangle"),
        "labels": lambda: Labels(
            np.kron([[0, 1], [2, 0]], np.ones((60, 80), int)), scale=(0.1, 0.1)
        ),
    }[kind]()
    crops = crops_of(field, marks, CropSize(20))
    table = results(crops, "monocyte", "basophil")
    if kind == "labels":
        layer = Layer.create(*points_layer(field, crops, table, MODEL))
    else:
        layer = marks
        dress(layer, table, field, MODEL, 20)
    for seen, classified in zip(
        crops_behind(viewer, layer).read([0, 1]), crops.read([0, 1]), strict=True
    ):
        np.testing.assert_array_equal(seen, classified)


def test_boxes_on_a_stack_of_fields_know_their_field():
    data = np.random.default_rng(1).integers(0, 255, (4, 90, 80, 3)).astype(np.uint8)
    crops = crops_of(Image(data, rgb=True), Points([[2, 40, 30]]), CropSize(20))
    np.testing.assert_array_equal(next(crops.read([0])), data[2, 30:50, 20:40])
    assert crops.cell(0).index == 2


def test_three_planes_of_a_field_are_its_colours():
    data = np.random.default_rng(1).integers(0, 255, (3, 90, 80)).astype(np.uint16)
    crops = crops_of(Image(data), Points([[40, 30]]), CropSize(20))
    np.testing.assert_array_equal(next(crops.read([0])), np.moveaxis(data, 0, -1)[30:50, 20:40])


def test_a_series_of_three_fields_that_says_so_is_no_picture_of_three_colours():
    series = Image(np.zeros((3, 90, 80), np.uint8), axis_labels=("t", "y", "x"))
    assert len(whole_fields(series)) == 3
    assert crops_of(series, Points([[2, 40, 30]]), CropSize(20)).frames.tolist() == [2]
    assert len(whole_fields(Image(series.data, axis_labels=("c", "y", "x")))) == 1


def test_a_picture_whose_colours_are_not_shown_as_such_is_no_stack_of_its_rows():
    image = Image(np.zeros((90, 80, 3), np.uint8), rgb=False, name="field")
    for take in (crop_stack, whole_fields):
        with pytest.raises(InputError, match="'field' has its colors in the last axis"):
            take(image)


def test_a_box_outside_the_image_is_an_error_of_that_cell(field):
    outside, inside = crops_of(field, Points([[-90, -90], [10, 10]]), CropSize(20)).read([0, 1])
    assert isinstance(outside, ImageError)
    assert inside.shape == (20, 20, 3)


@pytest.mark.parametrize(
    ("objects", "size", "sentence"),
    [
        (Points(ndim=2, name="none"), CropSize(), "'none' is empty"),
        (Labels(np.zeros((20, 20), int), name="none"), CropSize(), "'none' is empty"),
        (Points([[1, 2, 3, 4]], name="deep"), CropSize(), "'deep' has more dimensions"),
        (Points([[1, 2]]), CropSize(5, micrometres=True), "does not say how large its pixels are"),
    ],
    ids=["no point", "no label", "4-D points", "no scale"],
)
def test_marks_that_do_not_fit_are_refused_in_one_sentence(objects, size, sentence):
    image = Image(np.zeros((50, 60, 3), np.uint8), rgb=True)
    with pytest.raises(InputError, match=sentence):
        crops_of(image, objects, size)


# --- tables ---


def test_a_table_has_a_row_for_every_crop_and_its_own_prediction():
    crops = crop_stack(stack_layer(3))
    table = results(crops, "monocyte", "basophil", errors={1: "too small"})
    assert tuple(table.columns) == (*CELL_COLUMNS, *REVIEW_COLUMNS)
    assert table["index"].tolist() == [0, 1, 2]
    assert table["status"].tolist() == ["ok", "error", "ok"]
    assert table["label"].tolist() == ["monocyte", "", "basophil"]
    assert table["error"].tolist() == ["", "too small", ""]
    assert table["prob_basophil"].tolist() == pytest.approx([0.05, np.nan, 0.8], nan_ok=True)
    assert table["group"].unique().tolist() == ["slide"]
    assert table["cell_id"][2] == Cell("slide", "", 2, "slide").cell_id


def test_a_second_run_takes_over_what_is_known_by_cell_not_by_place(field):
    two = crops_of(field, Points([[10, 12], [20, 15]]), CropSize(20))
    earlier = results(two, "monocyte", "basophil")
    earlier.loc[1, "reviewed_label"] = "eosinophil"
    three = crops_of(field, Points([[20, 15], [15, 15], [10, 12]]), CropSize(20))
    table = resumed(cell_table(three), earlier, results=True)
    assert table["label"].tolist() == ["basophil", "", "monocyte"]
    assert table["status"].tolist() == ["ok", "pending", "ok"]
    assert table["reviewed_label"].tolist() == ["eosinophil", "", ""]
    other_model = resumed(cell_table(three), earlier, results=False)
    assert other_model["status"].tolist() == ["pending"] * 3
    assert other_model["reviewed_label"].tolist() == ["eosinophil", "", ""]


# --- how they look ---


def shown(layer: Image, cells: pd.DataFrame) -> Points:
    data, attributes, kind = points_layer(layer, crop_stack(layer), cells, MODEL)
    assert kind == "points"
    return Points(data, **attributes)


def test_points_lie_on_the_crops_whatever_transform_the_layer_has():
    layer = stack_layer(scale=(1, 0.5, 0.5), translate=(0, 10, 20), rotate=30, units="um")
    points = shown(layer, results(crop_stack(layer), "monocyte", "basophil", "monocyte"))
    np.testing.assert_array_equal(points.data, [[n, 19.5, 29.5] for n in range(3)])
    for place in points.data:
        np.testing.assert_allclose(points.data_to_world(place), layer.data_to_world(place))
    assert points.units == layer.units


def test_points_wear_the_colour_of_their_class_and_say_it():
    layer = stack_layer(3)
    cells = results(crop_stack(layer), "monocyte", "basophil", errors={1: "broken"})
    points = shown(layer, cells)
    colours = [CLASS_COLORS["monocyte"], ERROR_COLOR, CLASS_COLORS["basophil"]]
    expected = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]
    np.testing.assert_allclose(points.border_color[:, :3], expected, atol=1e-6)
    assert points.face_color[:, 3].max() == 0  # the cell stays visible
    assert points.text.values.tolist() == ["monocyte 80%", "not classified", "basophil 80%"]


def test_captions_name_the_best_guess_the_reviewer_and_nothing_in_blind_mode():
    cells = results(crop_stack(stack_layer(2)), "monocyte", "basophil")
    cells["label"] = "unidentified"
    cells.loc[1, "reviewed_label"] = "eosinophil"
    assert captions(cells).tolist() == ["unidentified (monocyte 80%)", "eosinophil ✓"]
    assert captions(cells, hidden=True).tolist() == ["", "eosinophil ✓"]


@pytest.mark.parametrize("kind", ["points", "shapes"])
def test_results_become_features_of_the_users_own_layer(field, kind):
    own = {"note": ["first", "second"]}
    if kind == "points":
        layer = Points([[10, 12], [20, 15]], features=own)
    else:
        box = np.array([[8, 10], [8, 12], [10, 12], [10, 10]], float)
        layer = Shapes([box, box + 4], shape_type="rectangle", features=own)
    crops = crops_of(field, layer, CropSize(20))
    dress(layer, results(crops, "monocyte", "basophil"), field, MODEL, 100)
    assert layer.features["note"].tolist() == ["first", "second"]
    assert layer.features["label"].tolist() == ["monocyte", "basophil"]
    assert layer.features[list(BOX_COLUMNS)].to_numpy().tolist() == crops.boxes.tolist()
    colours = layer.border_color if kind == "points" else layer.edge_color
    blue = [int(CLASS_COLORS["basophil"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    np.testing.assert_allclose(colours[1, :3], blue, atol=1e-6)
    assert layer.text.values.tolist() == ["monocyte 80%", "basophil 80%"]
    if kind == "points":
        np.testing.assert_allclose(layer.size, 2.0)  # 20 pixels of 0.1 um
    else:
        np.testing.assert_allclose(layer.edge_width, 0.06)  # of a side of 2 um


@pytest.mark.parametrize("axis", [None, 0, 1, -1], ids=["grey", "CNYX", "NCYX", "NYXC"])
def test_boxes_found_in_a_stack_of_fields_lie_on_their_fields(axis):
    pixels = np.random.default_rng(2).integers(0, 255, (5, 50, 70, 3)).astype(np.uint8)
    data = pixels[..., 0] if axis is None else np.moveaxis(pixels, -1, axis)
    stack = Image(data, rgb=axis == -1, name="fields")
    stack.scale = [2.0, *([0.1] * (stack.ndim - 1))]
    fields = whole_fields(stack)
    assert len(fields) == 5
    np.testing.assert_array_equal(
        next(fields.read([3])), pixels[3] if axis is not None else data[3]
    )
    found = {1: np.array([[3, 4, 10, 12]]), 3: np.array([[20, 5, 8, 8], [30, 30, 9, 9]])}
    shapes = Layer.create(*found_layer(stack, fields, found))
    crops = crops_of(stack, shapes, CropSize())
    assert crops.frames.tolist() == [1, 3, 3]
    assert crops.boxes.tolist() == [[3, 4, 10, 12], [20, 5, 8, 8], [30, 30, 9, 9]]


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (None, "There is no image to classify"),
        (Image(np.zeros((2, 2, 4, 40, 60), np.uint8), name="5-D"), "'5-D' has the shape"),
        (Image(np.zeros((0, 40, 60, 3), np.uint8), rgb=True, name="none"), "'none' is empty"),
    ],
    ids=["nothing", "5-D", "empty"],
)
def test_what_is_no_field_is_refused_in_one_sentence(layer, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        whole_fields(layer)
    assert "\n" not in str(caught.value)
