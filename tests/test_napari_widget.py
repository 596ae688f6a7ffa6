"""The dock widget on a viewer that is not shown: what buttons do, and what bad input does."""

import json
import shlex
import threading
from copy import deepcopy
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
from napari.layers import Image, Layer, Points
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QListView,
    QProgressBar,
    QPushButton,
)
from report_runs import write_blanks
from superqt.utils import WorkerBase

from wbc_batch.classifier import Classifier
from wbc_batch.errors import ImageError
from wbc_batch.run import classify_paths
from wbc_batch.schema import CELL_COLUMNS
from wbc_batch.sources import Cell
from wbc_batch.sources.pack import pack
from wbc_batch.synthetic import draw_cells, draw_field
from wbc_napari.crop_array import CropArray
from wbc_napari.crops import BATCH, ListedCrops
from wbc_napari.marks import MARK
from wbc_napari.readers import read_crops, read_run
from wbc_napari.review import queue
from wbc_napari.station import StationWidget
from wbc_napari.zoom import camera


def classified(dock, crops, name="slide"):
    dock.viewer.add_image(crops, name=name)
    dock.button("Classify").click()
    dock.finish()
    return dock.viewer.layers[f"{name} cells"]


@pytest.fixture(scope="module")
def crops():
    return draw_cells(134, seed=5, size=96)[0]


@pytest.fixture
def dock(make_napari_viewer, qtbot, own_journals):
    """Return a viewer with the dock, and what tests do with the two."""
    viewer = make_napari_viewer()
    widget = StationWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Classify cells")
    notification_manager.records.clear()

    def button(text):
        return next(b for b in widget.findChildren(QPushButton) if b.text() == text)

    def finish():
        qtbot.waitUntil(lambda: button("Classify").isEnabled(), timeout=300_000)

    def said():
        return [str(record.message) for record in notification_manager.records]

    return SimpleNamespace(viewer=viewer, widget=widget, button=button, finish=finish, said=said)


def test_one_click_classifies_and_the_cells_are_up_for_review(dock, crops):
    dock.viewer.add_image(crops, name="slide")
    dock.button("Classify").click()
    dock.finish()
    points = dock.viewer.layers["slide cells"]
    assert isinstance(points, Points)
    assert tuple(points.features.columns[: len(CELL_COLUMNS)]) == CELL_COLUMNS
    assert points.features["index"].tolist() == list(range(134))
    assert (points.features["status"] == "ok").all()
    assert dock.widget.session.layer is points
    assert dock.said() == []


def test_a_second_run_takes_the_place_of_the_first(dock, crops):
    dock.viewer.add_image(crops[:3], name="slide")
    for _ in range(2):
        dock.button("Classify").click()
        dock.finish()
    assert [layer.name for layer in dock.viewer.layers] == ["slide", "slide cells"]


def test_a_second_run_leaves_the_layer_where_it_is(dock, crops):
    layer = classified(dock, crops[:3])
    layer.name = "mine"
    dock.button("Classify").click()
    dock.finish()
    assert dock.viewer.layers[-1] is layer
    assert dock.widget.session.layer is layer


@pytest.fixture(scope="module")
def field():
    """A field of view, and boxes around five cells in it."""
    pixels, boxes, _ = draw_field(seed=0, width=640, height=480, leukocytes=5)
    return pixels, [
        np.array([[y, x], [y, x + width], [y + height, x + width], [y + height, x]], float) - 0.5
        for x, y, width, height in boxes
    ]


def marked(dock, field, add):
    """Show the field and marks on it, both chosen."""
    image = dock.viewer.add_image(field[0], rgb=True, name="field")
    marks = add(dock.viewer)
    dock.widget.classify.form.image.value = image
    dock.widget.classify.form.marks.value = marks
    return marks


def test_results_go_to_the_boxes_that_they_are_of_though_these_change_meanwhile(dock, field):
    boxes = field[1]
    shapes = marked(dock, field, lambda viewer: viewer.add_shapes(boxes[:3]))
    dock.button("Classify").click()
    shapes.selected_data = {0}
    shapes.remove_selected()
    shapes.add_rectangles(boxes[3])
    dock.finish()
    meanwhile = shapes.features[["cell_id", "status", "predicted"]].copy()
    assert meanwhile["status"].tolist() == ["ok", "ok", "pending"]
    labels = [label.text() for label in dock.widget.classify.findChildren(QLabel)]
    assert "1 cells were marked during the run; press Classify again." in labels
    dock.button("Classify").click()
    dock.finish()
    assert (shapes.features["status"] == "ok").all()
    known = shapes.features.set_index("cell_id")["predicted"].loc[meanwhile["cell_id"][:2]]
    assert known.tolist() == meanwhile["predicted"].tolist()[:2]
    assert dock.said() == []


def test_a_pasted_box_is_taken_up_by_the_review(dock, field, tmp_path):
    shapes = marked(dock, field, lambda viewer: viewer.add_shapes(field[1][:3]))
    dock.button("Classify").click()
    dock.finish()
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    shapes.selected_data = {0}
    shapes._copy_data()
    shapes._paste_data()
    session = dock.widget.session
    assert len(session.review.cell_ids) == len(session.crops) == 4
    for key in ("2", "Right", "Space"):
        dock.widget.review.acted.emit(key)
    dock.button("Classify").click()
    dock.finish()
    assert (shapes.features["status"] == "ok").all()
    assert dock.said() == []


def test_points_keep_their_labels_when_another_size_is_classified(dock, field):
    centres = [box.mean(axis=0) for box in field[1][:2]]
    marked(dock, field, lambda viewer: viewer.add_points(centres))
    for size in (100, 120):
        dock.widget.classify.form.size.value = size
        dock.button("Classify").click()
        dock.finish()
        cells = dock.widget.session.cells
        assert (cells["width"] == size).all()
        dock.widget.session.relabel([0], "basophil")
    assert cells["reviewed_label"].tolist() == ["basophil", ""]
    assert dock.widget.session.review.undo() == ()  # it had the label


def test_two_layers_of_labels_on_one_image_keep_their_results_apart(dock, field):
    def areas(boxes):
        labels = np.zeros((480, 640), int)
        for number, box in enumerate(boxes, 1):
            (top, left), (bottom, right) = box.min(axis=0).astype(int), box.max(axis=0).astype(int)
            labels[top:bottom, left:right] = number
        return labels

    marked(dock, field, lambda viewer: viewer.add_labels(areas(field[1][:2]), name="a"))
    dock.button("Classify").click()
    dock.finish()
    first = dock.widget.session.layer
    other = dock.viewer.add_labels(areas(field[1][2:]), name="b")
    dock.widget.classify.form.marks.value = other
    dock.button("Classify").click()
    dock.finish()
    assert first in dock.viewer.layers
    assert len(first.features) == 2
    assert len(dock.widget.session.layer.features) == 3


def test_cells_whose_image_was_closed_are_told_of_once_and_reviewed_again_with_it(dock, crops):
    layer = classified(dock, crops[:3])
    dock.viewer.layers.remove("slide")
    dock.widget.review_layer(layer)
    assert len(dock.said()) == 1
    assert "is no longer open" in dock.said()[0]
    dock.viewer.add_image(np.zeros((5, 5)), name="another")
    dock.viewer.layers["another"].name = "renamed"
    assert len(dock.said()) == 1
    dock.viewer.add_image(crops[:3], name="slide")
    assert dock.widget.session.layer is layer


class HeldArray:
    """Crops; a reader of the second batch is held until told to go on."""

    def __init__(self, data):
        self.data, self.held, self.go = data, threading.Event(), threading.Event()
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, key):
        if isinstance(key, slice) and key.start == BATCH:
            self.held.set()
            self.go.wait(60)
        return self.data[key]


class HeldFields(HeldArray):
    """Fields of view; whoever searches the second one is held, the canvas is not."""

    def __getitem__(self, key):
        if key[0] == 1 and threading.current_thread() is not threading.main_thread():
            self.held.set()
            self.go.wait(60)
        return self.data[key]


class BrokenFields(HeldArray):
    """Fields of view of which the second one cannot be read for a search; the canvas shows it."""

    def __getitem__(self, key):
        if key[0] == 1 and threading.current_thread() is not threading.main_thread():
            raise OSError("cut off")
        return self.data[key]


@pytest.fixture
def half_done(dock, crops, qtbot):
    """A run that has classified 64 of 134 cells and stands before the next batch."""
    held = HeldArray(crops)
    layer = dock.viewer.add_image(held, rgb=True, name="slide")
    dock.button("Classify").click()
    qtbot.waitUntil(held.held.is_set, timeout=300_000)
    yield SimpleNamespace(layer=layer, go=held.go)
    held.go.set()


def test_cancel_keeps_what_was_classified(dock, half_done):
    assert not dock.button("Classify").isEnabled()
    dock.button("Cancel").click()
    half_done.go.set()
    dock.finish()
    # The batch that the network had is kept, and at most the one that was read meanwhile.
    cells = dock.viewer.layers["slide cells"].features
    done = int((cells["status"] == "ok").sum())
    assert done in (64, 128)
    assert f"{done} of 134" in dock.widget.classify.findChild(QProgressBar).text()
    first = cells["confidence"].tolist()
    dock.button("Classify").click()  # goes on where it stopped
    dock.finish()
    cells = dock.viewer.layers["slide cells"].features
    assert (cells["status"] == "ok").all()
    assert cells["confidence"].tolist()[:done] == first[:done]
    assert dock.said() == []


def test_a_layer_that_is_deleted_during_the_run_ends_it(dock, half_done):
    dock.viewer.layers.remove(half_done.layer)
    half_done.go.set()
    dock.finish()
    assert dock.said() == ["'slide' was removed during the run; nothing was added."]
    assert list(dock.viewer.layers) == []


def test_a_dock_that_is_closed_during_the_run_ends_it(dock, half_done, qtbot):
    dock.viewer.window.remove_dock_widget(dock.widget)
    half_done.go.set()
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=300_000)
    assert [layer.name for layer in dock.viewer.layers] == ["slide"]
    assert dock.said() == []


def test_a_closed_dock_lets_go_of_viewer_layers_and_review(dock, crops):
    points = classified(dock, crops[:5])
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    session, events = dock.widget.session, dock.viewer.layers.events
    emitters = [
        *(events.inserted, events.removed, events.reordered, events.renamed),
        dock.viewer.layers.selection.events.active,
        camera(dock.viewer).events.zoom,
        points.events.data,
    ]
    parts = (dock.widget, dock.widget.classify)

    def ours():
        callbacks = [c for emitter in emitters for c in getattr(emitter, "callbacks", emitter)]
        owners = [c[0]() if isinstance(c, tuple) else c for c in callbacks]
        return [owner for owner in owners if any(owner is part for part in parts)]

    assert ours()
    assert len(session.changed) > 0
    dock.viewer.window.remove_dock_widget(dock.widget)
    assert not ours()
    assert len(session.changed) == len(session.moved) == 0


@pytest.mark.parametrize(
    ("data", "rgb", "sentence"),
    [
        (None, False, "There is no image to classify"),
        (np.zeros((2, 2, 4, 40, 60), np.uint8), False, "has the shape"),
        (np.zeros((40, 60), np.uint8), False, "is a single image"),
        (np.zeros((2, 40, 60, 3), np.float32), True, "cannot be classified"),
        (np.zeros((0, 40, 60, 3), np.uint8), True, "is empty"),
    ],
    ids=["no layer", "5-D", "2-D grey", "float", "empty"],
)
def test_bad_input_is_told_once_and_the_viewer_stays_usable(dock, crops, data, rgb, sentence):
    if data is not None:
        dock.viewer.add_image(data, rgb=rgb, name="bad")
    assert_told_once_and_usable(dock, crops, "Classify", sentence)


@pytest.mark.parametrize(
    ("data", "rgb", "sentence"),
    [
        (None, False, "There is no image to classify"),
        (np.zeros((2, 2, 4, 40, 60), np.uint8), False, "has the shape"),
        (np.zeros((40, 60, 3), np.float32), True, "cannot be searched for cells"),
        (np.zeros((0, 40, 60, 3), np.uint8), True, "is empty"),
    ],
    ids=["no layer", "5-D", "float", "empty"],
)
def test_what_cells_cannot_be_found_in_is_told_once(dock, crops, data, rgb, sentence):
    if data is not None:
        dock.viewer.add_image(data, rgb=rgb, name="bad")
    assert_told_once_and_usable(dock, crops, "Find cells", sentence)


@pytest.mark.parametrize("kind", ["points", "shapes", "labels"])
def test_a_layer_without_cells_is_told_once(dock, crops, kind):
    field = dock.viewer.add_image(np.full((60, 80, 3), 200, np.uint8), rgb=True, name="field")
    data = {"points": None, "shapes": None, "labels": np.zeros((60, 80), int)}[kind]
    marks = getattr(dock.viewer, f"add_{kind}")(data, name="marks")
    dock.widget.classify.form.image.value = field
    dock.widget.classify.form.marks.value = marks
    assert_told_once_and_usable(dock, crops, "Classify", "'marks' is empty; mark the cells")


def test_a_name_that_looks_like_html_is_told_as_it_is(dock, crops):
    dock.viewer.add_image(crops, name="<h1>slide</h1>")
    dock.widget.classify.copy_command()
    (told,) = dock.said()
    assert "slide" in told
    assert not Qt.mightBeRichText(told)
    labels = dock.widget.classify.findChildren(QLabel)
    (shown,) = [label for label in labels if "<h1>slide</h1>" in label.text()]
    assert shown.textFormat() == Qt.TextFormat.PlainText


def assert_told_once_and_usable(dock, crops, button, sentence):
    dock.button(button).click()
    dock.finish()
    assert len(dock.said()) == 1
    assert sentence in dock.said()[0]
    assert "\n" not in dock.said()[0]
    dock.viewer.layers.clear()
    assert (classified(dock, crops[:3], "good").features["status"] == "ok").all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over crops of many sizes, and the store that they were packed into."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "slide").mkdir()
    for number, side in enumerate((120, 360, 90, 200)):
        picture = draw_cells(4, seed=3, size=side)[0][number]
        imageio.imwrite(folder / "slide" / f"{number}.png", picture)
    pack([folder / "slide"], folder / "packed.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_batch.report.drawings.write_drawings", write_blanks)
        classify_paths([folder / "packed.zarr"], folder / "run", device="cpu", workers=1)
    return folder / "run"


NUMBERS = ["confidence", "margin", "novelty"]


def test_a_run_is_classified_again_on_its_own_crops_and_keeps_its_review(dock, run):
    for data, attributes, kind in read_run(str(run))(None):
        dock.viewer.add_layer(Layer.create(data, attributes, kind))
    before = dock.viewer.layers["run cells"].features.copy()
    dock.widget.session.relabel([1], "monocyte")
    assert dock.widget.classify.form.marks.choices == (None,)  # its frames mark no cells of a field
    dock.button("Classify").click()
    dock.finish()
    assert [layer.name for layer in dock.viewer.layers] == ["run", "run cells"]
    cells = dock.viewer.layers["run cells"].features
    assert cells["cell_id"].tolist() == before["cell_id"].tolist()
    assert cells["predicted"].tolist() == before["predicted"].tolist()
    np.testing.assert_allclose(cells[NUMBERS], before[NUMBERS], atol=1e-3)
    assert cells["reviewed_label"].tolist() == ["", "monocyte", "", ""]
    shapes = [image.shape[:2] for image in dock.widget.session.crops.read(range(4))]
    assert sorted(shapes) == [(side, side) for side in (90, 120, 200, 360)]
    dock.button("Show canonical crops").click()
    dock.finish()
    assert np.asarray(dock.viewer.layers["run canonical"].data[2]).std() > 0
    assert all("were restored" in said for said in dock.said())


def test_a_packed_store_is_classified_as_wbc_batch_does(dock, run):
    store = run.parent / "packed.zarr"
    ((data, attributes, kind),) = read_crops(str(store))(None)
    dock.viewer.add_layer(Layer.create(data, attributes, kind))
    dock.button("Classify").click()
    dock.finish()
    cells = dock.viewer.layers["packed cells"].features.set_index("cell_id")
    expected = pd.read_csv(run / "cells.csv").set_index("cell_id").loc[cells.index]
    assert cells["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(cells[NUMBERS], expected[NUMBERS], atol=1e-3)
    classify, report = (
        next(b for b in page.findChildren(QPushButton) if b.text() == "Copy as command")
        for page in (dock.widget.classify, dock.widget.report)
    )
    classify.click()
    assert shlex.split(QApplication.clipboard().text())[:3] == ["wbc-batch", "classify", str(store)]
    assert dock.said() == []
    report.click()
    assert "are not from a batch run" in dock.said()[0]


def test_a_finished_run_that_is_opened_shows_how_many_cells_are_done_and_by_which_model(dock, run):
    for data, attributes, kind in read_run(str(run))(None):
        dock.viewer.add_layer(Layer.create(data, attributes, kind))
    progress = dock.widget.classify.findChild(QProgressBar)
    assert (progress.value(), progress.maximum()) == (4, 4)
    labels = [label.text() for label in dock.widget.classify.findChildren(QLabel)]
    assert any(text.startswith("By model lite") for text in labels)


def test_a_copy_of_the_image_of_listed_crops_has_the_same_results(dock, run):
    ((data, attributes, kind),) = read_crops(str(run.parent / "packed.zarr"))(None)
    image = dock.viewer.add_layer(Layer.create(data, attributes, kind))
    dock.button("Classify").click()
    dock.finish()
    copy = duplicate(dock.viewer, image)
    np.testing.assert_array_equal(np.asarray(copy.data[2]), np.asarray(image.data[2]))
    dock.widget.classify.form.image.value = copy
    progress = dock.widget.classify.findChild(QProgressBar)
    assert (progress.value(), progress.maximum()) == (4, 4)
    dock.button("Classify").click()
    dock.finish()
    assert [layer.name for layer in dock.viewer.layers].count("packed cells") == 1
    assert len(dock.viewer.layers) == 3


def test_a_long_command_is_copied_whole_and_shown_in_short(dock, tmp_path):
    folder = tmp_path / ("of-several-slides-" * 3)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(9)]
    for path in paths:
        imageio.imwrite(path, np.full((40, 40, 3), 200, np.uint8))
    data = ListedCrops("many", [Cell(str(path), "", None, "g") for path in paths])
    mark = {"run": str(tmp_path), "base": ""}
    dock.viewer.add_image(CropArray(data), rgb=True, metadata={MARK: mark})
    dock.widget.classify.copy_command()
    words = shlex.split(QApplication.clipboard().text())
    assert words[2:-2] == [str(path) for path in paths]
    shown = max((label.text() for label in dock.widget.classify.findChildren(QLabel)), key=len)
    assert shown.startswith("Copied: wbc-batch classify ")
    assert len(shown) < 300


def duplicate(viewer, layer):
    """Do what napari's Duplicate does."""
    data, state, kind = layer.as_layer_data_tuple()
    state["name"] = f"{layer.name} copy"
    return viewer.add_layer(Layer.create(deepcopy(data), state, kind))


def test_crops_that_cannot_be_prepared_are_not_shown_as_black(dock):
    dock.viewer.add_image(np.zeros((2, 40, 60, 3), np.float32), rgb=True, name="floats")
    dock.button("Show canonical crops").click()
    dock.finish()
    assert len(dock.said()) == 1
    assert [layer.name for layer in dock.viewer.layers] == ["floats"]


def test_a_model_that_does_not_load_is_told_once(dock, crops, tmp_path):
    dock.viewer.add_image(crops[:3], name="slide")
    model = dock.widget.classify.form.model.line_edit.native
    model.setText(str(tmp_path))
    dock.button("Classify").click()
    dock.finish()
    assert len(dock.said()) == 1
    assert str(tmp_path) in dock.said()[0]
    model.setText("~nosuchuser/model")
    dock.button("Classify").click()
    dock.finish()
    assert "there is no model '~nosuchuser/model'" in dock.said()[-1]
    model.setText("")
    dock.button("Classify").click()
    dock.finish()
    assert "slide cells" in dock.viewer.layers


def test_crops_that_cannot_be_classified_are_counted(dock, crops, monkeypatch):
    prepare = Classifier.prepare

    def refusing(self, image):
        if (image == 0).all():
            raise ImageError("it is black")
        return prepare(self, image)

    monkeypatch.setattr(Classifier, "prepare", refusing)
    some = crops[:4].copy()
    some[2] = 0
    dock.viewer.add_image(some, name="slide")
    dock.button("Classify").click()
    dock.finish()
    cells = dock.viewer.layers["slide cells"].features
    assert cells["status"].tolist() == ["ok", "ok", "error", "ok"]
    said = "1 of 4 crops could not be classified; the first is crop 2: it is black."
    assert dock.said() == [said]


def test_the_canonical_crops_are_shown(dock, crops):
    dock.viewer.add_image(crops[:3], name="slide")
    dock.button("Show canonical crops").click()
    dock.finish()
    canonical = dock.viewer.layers["slide canonical"]
    assert isinstance(canonical, Image)
    assert canonical.data.shape[0] == 3
    assert np.asarray(canonical.data[1]).std() > 0


def test_cells_are_found_boxed_and_classified_on_the_boxes(dock):
    field, boxes, _ = draw_field(seed=0)
    dock.viewer.add_image(field, rgb=True, name="field")
    dock.button("Find cells").click()
    dock.finish()
    shapes = dock.viewer.layers["field cells"]
    assert len(shapes.data) == len(boxes)
    dock.button("Classify").click()
    dock.finish()
    assert shapes.features["label"].ne("").all()
    assert [layer.name for layer in dock.viewer.layers] == ["field", "field cells"]
    assert dock.said() == []


@pytest.fixture(scope="module")
def fields():
    """Three fields of view, and the number of cells that were drawn on each."""
    drawn = [draw_field(seed, leukocytes=2 + seed) for seed in range(3)]
    return np.stack([image for image, _, _ in drawn]), [len(boxes) for _, boxes, _ in drawn]


def on_each(shapes, count):
    planes = [int(np.asarray(shape)[0, 0]) for shape in shapes.data]
    return [planes.count(number) for number in range(count)]


def test_cells_are_found_on_all_fields_of_a_stack(dock, fields):
    data, drawn = fields
    dock.viewer.add_image(data, rgb=True, name="fields")
    dock.button("Find cells").click()
    dock.finish()
    shapes = dock.viewer.layers["fields cells"]
    assert on_each(shapes, 3) == drawn
    dock.button("Classify").click()
    dock.finish()
    assert (shapes.features["status"] == "ok").all()
    assert shapes.features["index"].tolist() == np.repeat(range(3), drawn).tolist()
    assert dock.said() == []


def test_a_search_that_is_cancelled_keeps_the_fields_that_were_searched(dock, fields, qtbot):
    data, drawn = fields
    held = HeldFields(data)
    dock.viewer.add_image(held, rgb=True, name="fields")
    dock.button("Find cells").click()
    qtbot.waitUntil(held.held.is_set, timeout=300_000)
    bar = dock.widget.classify.findChild(QProgressBar)
    qtbot.waitUntil(lambda: bar.text() == "1 of 3 fields", timeout=10_000)
    dock.button("Cancel").click()
    held.go.set()
    dock.finish()
    assert on_each(dock.viewer.layers["fields cells"], 3) == [drawn[0], drawn[1], 0]
    said = [label.text() for label in dock.widget.classify.findChildren(QLabel)]
    assert "Stopped; 2 of 3 fields were searched." in said
    assert dock.said() == []


def test_a_field_that_cannot_be_read_is_named_and_the_boxes_of_the_others_are_there(dock, fields):
    data, drawn = fields
    dock.viewer.add_image(BrokenFields(data), rgb=True, name="fields")
    dock.button("Find cells").click()
    dock.finish()
    assert on_each(dock.viewer.layers["fields cells"], 3) == [drawn[0], 0, drawn[2]]
    assert len(dock.said()) == 1
    assert "1 of 3 fields could not be read; the first is field 1 of the slider:" in dock.said()[0]


@pytest.mark.parametrize("labels", [None, ("t", "y", "x")])
def test_grey_planes_that_are_taken_for_colours_are_told(dock, fields, labels):
    data, _ = fields
    grey = data.mean(-1).astype(np.uint8)
    dock.viewer.add_image(grey, name="grey", axis_labels=labels)
    dock.button("Find cells").click()
    dock.finish()
    said = [label.text() for label in dock.widget.classify.findChildren(QLabel)]
    assert any("3 planes of 'grey' were taken as the colors" in text for text in said) == (
        labels is None
    )


def test_a_field_without_cells_is_told(dock):
    dock.viewer.add_image(np.full((60, 80, 3), 230, np.uint8), rgb=True, name="empty")
    dock.button("Find cells").click()
    dock.finish()
    assert len(dock.said()) == 1
    assert "No leukocyte was found in 'empty'" in dock.said()[0]


def test_keys_are_the_reviews_while_it_is_shown_and_napari_s_again_after(dock, crops):
    dock.viewer.add_image(crops[:5], name="slide")
    dock.button("Classify").click()
    dock.finish()
    points = dock.viewer.layers["slide cells"]
    assert not points.keymap
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    assert {str(key) for key in points.keymap} >= {"1", "5", "U", "Space"}
    dock.widget.tabs.setCurrentWidget(dock.widget.classify)
    assert not points.keymap
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    dock.viewer.window.remove_dock_widget(dock.widget)
    assert not points.keymap


def texts(page):
    return "\n".join(label.text() for label in page.findChildren(QLabel))


def test_a_second_reader_starts_from_nothing_and_kappa_is_shown(dock, crops, qtbot):
    points = classified(dock, crops[:6])
    page, session = dock.widget.review, dock.widget.session
    page.reader.setText("ann")
    page.reader.editingFinished.emit()
    for row, label in enumerate(["monocyte", "monocyte", "basophil", "neutrophil"]):
        session.relabel([row], label)
    page.reader.setText("bob")
    page.reader.editingFinished.emit()
    assert (points.features["reviewed_label"] == "").all()
    for row, label in enumerate(["monocyte", "basophil", "basophil", "neutrophil"]):
        session.relabel([row], label)
    assert set(points.features["reviewed_by"]) == {"bob", ""}
    dock.widget.tabs.setCurrentWidget(dock.widget.report)
    dock.widget.report.refresh()
    by_chance = (2 * 1 + 1 * 2 + 1 * 1) / 4**2
    kappa = (3 / 4 - by_chance) / (1 - by_chance)
    assert f"With ann: 3 of 4 cells agree, κ = {kappa:.2f}" in texts(dock.widget.report)
    page.reader.setText("ann")
    page.reader.editingFinished.emit()
    assert points.features["reviewed_label"].tolist()[:2] == ["monocyte"] * 2


def test_a_blind_review_keeps_its_seed_and_tells_nothing_of_the_model(dock, crops):
    points = classified(dock, crops[:6])
    session = dock.widget.session
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    blind = next(b for b in dock.widget.review.findChildren(QCheckBox) if b.text() == "blind")
    blind.click()
    assert session.blind
    assert "Model" not in texts(dock.widget.review)
    session.relabel([2], "monocyte")
    line = json.loads(session.journal.path.read_text(encoding="utf-8").splitlines()[-1])
    assert line["blind_seed"] == session.seed
    order = queue(points.features, "As in the table", seed=line["blind_seed"])
    assert session.rows.tolist() == order.tolist()
    blind.click()
    assert "Model" in texts(dock.widget.review)


def test_one_history_holds_what_was_done_on_every_page(dock, crops, qtbot):
    classified(dock, crops[:6])
    session = dock.widget.session
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    first = session.row
    qtbot.keyClick(dock.widget, "1")
    dock.widget.tabs.setCurrentWidget(dock.widget.gallery)
    dock.widget.gallery.show_label("basophil")
    cells = dock.widget.gallery.findChild(QListView)
    cells.selectAll()
    qtbot.keyClick(cells, "2")
    assert session.review.labels[first] == "eosinophil"
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    qtbot.keyClick(dock.widget, "Z", control)
    assert session.review.labels[first] == "basophil"
    qtbot.keyClick(dock.widget, "Z", control)
    assert not session.review.reviewed.any()
    for _ in range(2):
        qtbot.keyClick(dock.widget, "Z", control | shift)
    assert session.review.labels[first] == "eosinophil"


def test_after_a_crash_the_labels_are_back_and_the_reader_is_told(dock, crops):
    classified(dock, crops[:6])
    dock.widget.session.relabel([1, 4], "monocyte")
    dock.viewer.layers.clear()  # nothing was saved by hand
    points = classified(dock, crops[:6])
    assert points.features["reviewed_label"].tolist() == ["", "monocyte", "", "", "monocyte", ""]
    (said,) = dock.said()
    assert said.startswith("2 reviewed cells were restored from")


def test_every_control_explains_itself(dock, crops):
    classified(dock, crops[:3])
    kinds = (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox)
    for number in range(dock.widget.tabs.count()):
        page = dock.widget.tabs.widget(number)
        dock.widget.tabs.setCurrentWidget(page)
        controls = [c for kind in kinds for c in page.findChildren(kind)]
        shown = [c for c in controls if c.isVisibleTo(page)]
        mute = [c for c in shown if not c.toolTip() and not has_explaining_parent(c, page)]
        assert mute == [], [(type(c).__name__, c.objectName()) for c in mute]
        assert dock.widget.tabs.tabToolTip(number)


def has_explaining_parent(control, page):
    """A part of a combo or a spin box shows the tooltip of the whole."""
    parent = control.parentWidget()
    while parent is not None and parent is not page:
        if parent.toolTip():
            return True
        parent = parent.parentWidget()
    return False


def test_a_layer_that_is_removed_under_review_ends_it(dock, crops):
    dock.viewer.add_image(crops[:5], name="slide")
    dock.button("Classify").click()
    dock.finish()
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    dock.viewer.layers.remove("slide cells")
    assert dock.widget.session is None
    assert not dock.widget.review.isEnabled()
    assert dock.said() == []
