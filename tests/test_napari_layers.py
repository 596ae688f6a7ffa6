"""Layers to crops and predictions to layers, without a window."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from napari.layers import Image, Points

from wbc_batch.classifier import Predictions
from wbc_batch.errors import InputError
from wbc_batch.schema import CELL_COLUMNS, CLASS_COLORS, CLASSES, ERROR_COLOR
from wbc_batch.sources import Cell
from wbc_napari.layers import cell_table, crop_stack, points_layer

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


def test_a_stack_of_crops_is_read_in_slices_only():
    data = Lazy(np.arange(4 * 40 * 60 * 3, dtype=np.uint8).reshape(4, 40, 60, 3))
    layer = Image(data, rgb=True, name="slide")
    data.read.clear()
    stack = crop_stack(layer)
    assert (len(stack), stack.size, data.read) == (4, (40, 60), [])
    np.testing.assert_array_equal(stack.read(1, 3), data.data[1:3])
    assert data.read == [slice(1, 3)]


@pytest.mark.parametrize("shape", [(5, 40, 60, 4), (5, 40, 60)], ids=["rgba", "grey"])
def test_colour_with_opacity_and_grey_are_stacks_too(shape):
    stack = crop_stack(Image(np.zeros(shape, np.uint8), rgb=len(shape) == 4))
    assert (len(stack), stack.size) == (5, (40, 60))


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
    assert crop_stack(Image(data, rgb=True)).spans() == spans


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (None, "There is no image to classify"),
        (Image(np.zeros((40, 60, 3), np.uint8), rgb=True, name="field"), "'field' is one picture"),
        (Image(np.zeros((40, 60), np.uint8), name="grey"), "'grey' is one picture"),
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


def test_a_table_has_a_row_for_every_crop_and_its_own_prediction():
    stack = crop_stack(stack_layer(10))
    table = cell_table(stack, (4, 7), predictions("monocyte", "basophil"), {5: "too small"})
    assert tuple(table.columns) == CELL_COLUMNS
    assert table["index"].tolist() == [4, 5, 6]
    assert table["status"].tolist() == ["ok", "error", "ok"]
    assert table["label"].tolist() == ["monocyte", "", "basophil"]
    assert table["error"].tolist() == ["", "too small", ""]
    assert table["prob_basophil"].tolist() == pytest.approx([0.05, np.nan, 0.8], nan_ok=True)
    assert table["group"].unique().tolist() == ["slide"]
    assert table["cell_id"][2] == Cell("slide", "", 6, "slide").cell_id


def test_a_table_of_errors_alone_has_the_same_columns():
    table = cell_table(crop_stack(stack_layer(2)), (0, 2), None, {0: "bad", 1: "bad"})
    assert tuple(table.columns) == CELL_COLUMNS
    assert table["label"].tolist() == ["", ""]
    assert table["confidence"].isna().all()


def shown(layer: Image, cells: pd.DataFrame) -> Points:
    data, attributes, kind = points_layer(layer, crop_stack(layer), cells, MODEL)
    assert kind == "points"
    return Points(data, **attributes)


def test_points_lie_on_the_crops_whatever_transform_the_layer_has():
    layer = stack_layer(scale=(1, 0.5, 0.5), translate=(0, 10, 20), rotate=30, units="um")
    cells = cell_table(
        crop_stack(layer), (0, 3), predictions("monocyte", "basophil", "monocyte"), {}
    )
    points = shown(layer, cells)
    np.testing.assert_array_equal(points.data, [[n, 19.5, 29.5] for n in range(3)])
    for place in points.data:
        np.testing.assert_allclose(points.data_to_world(place), layer.data_to_world(place))
    assert points.units == layer.units


def test_points_wear_the_colour_of_their_class_and_say_it():
    layer = stack_layer(3)
    cells = cell_table(
        crop_stack(layer), (0, 3), predictions("monocyte", "basophil"), {1: "broken"}
    )
    points = shown(layer, cells)
    colours = [CLASS_COLORS["monocyte"], ERROR_COLOR, CLASS_COLORS["basophil"]]
    expected = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]
    np.testing.assert_allclose(points.border_color[:, :3], expected, atol=1e-6)
    assert points.face_color[:, 3].max() == 0  # the cell stays visible
    assert points.text.values.tolist() == ["monocyte 80%", "not classified", "basophil 80%"]
    assert tuple(points.features.columns) == CELL_COLUMNS


def test_the_caption_of_an_unidentified_cell_names_the_best_guess():
    layer = stack_layer(1)
    cells = cell_table(crop_stack(layer), (0, 1), predictions("monocyte"), {})
    points = shown(layer, cells.assign(label="unidentified"))
    assert points.text.values.tolist() == ["unidentified (monocyte 80%)"]
