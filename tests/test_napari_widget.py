"""The dock widget on a viewer that is not shown: what buttons do, and what bad input does."""

import importlib.util
import threading
from types import SimpleNamespace

import numpy as np
import pytest

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from napari.layers import Image, Points
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QProgressBar, QPushButton
from superqt.utils import WorkerBase

from wbc_batch.classifier import Classifier
from wbc_batch.errors import ImageError
from wbc_batch.schema import CELL_COLUMNS
from wbc_batch.synthetic import draw_cells, draw_field
from wbc_napari.crops import BATCH
from wbc_napari.station import StationWidget


@pytest.fixture(scope="module")
def crops():
    return draw_cells(134, seed=5, size=96)[0]


@pytest.fixture
def dock(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    """Return a viewer with the dock, and what tests do with the two."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "journals")
    viewer = make_napari_viewer()
    widget = StationWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Classify cells")
    notification_manager.records.clear()

    def button(text):
        return next(b for b in widget.findChildren(QPushButton) if b.text() == text)

    def finish():
        qtbot.waitUntil(lambda: button("Classify").isEnabled(), timeout=60_000)

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


@pytest.fixture
def half_done(dock, crops, qtbot):
    """A run that has classified 64 of 134 cells and stands before the next batch."""
    held = HeldArray(crops)
    layer = dock.viewer.add_image(held, rgb=True, name="slide")
    dock.button("Classify").click()
    qtbot.waitUntil(held.held.is_set, timeout=60_000)
    yield SimpleNamespace(layer=layer, go=held.go)
    held.go.set()


def test_cancel_keeps_what_was_classified(dock, half_done):
    assert not dock.button("Classify").isEnabled()
    dock.button("Cancel").click()
    half_done.go.set()
    dock.finish()
    # The batch that was under way is finished, the next is not begun.
    cells = dock.viewer.layers["slide cells"].features
    assert (cells["status"] == "ok").sum() == 128
    assert "128 of 134" in dock.widget.classify.findChild(QProgressBar).text()
    first = cells["confidence"].tolist()
    dock.button("Classify").click()  # goes on where it stopped
    dock.finish()
    cells = dock.viewer.layers["slide cells"].features
    assert (cells["status"] == "ok").all()
    assert cells["confidence"].tolist()[:128] == first[:128]
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
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=60_000)
    assert [layer.name for layer in dock.viewer.layers] == ["slide"]
    assert dock.said() == []


def test_a_closed_dock_lets_go_of_the_viewer(dock):
    events = dock.viewer.layers.events

    def ours():
        callbacks = [c for e in (events.inserted, events.removed) for c in e.callbacks]
        return [
            c
            for c in callbacks
            if isinstance(c, tuple) and c[0]() in (dock.widget, dock.widget.classify)
        ]

    assert ours()
    dock.viewer.window.remove_dock_widget(dock.widget)
    assert not ours()


@pytest.mark.parametrize(
    ("data", "rgb", "sentence"),
    [
        (None, False, "There is no image to classify"),
        (np.zeros((2, 2, 4, 40, 60), np.uint8), False, "has the shape"),
        (np.zeros((40, 60), np.uint8), False, "is one picture"),
        (np.zeros((2, 40, 60, 3), np.float32), True, "cannot be classified"),
    ],
    ids=["no layer", "5-D", "2-D grey", "float"],
)
def test_bad_input_is_told_once_and_the_viewer_stays_usable(dock, crops, data, rgb, sentence):
    if data is not None:
        dock.viewer.add_image(data, rgb=rgb, name="bad")
    dock.button("Classify").click()
    dock.finish()
    assert len(dock.said()) == 1
    assert sentence in dock.said()[0]
    assert "\n" not in dock.said()[0]
    dock.viewer.layers.clear()
    dock.viewer.add_image(crops[:3], name="good")
    dock.button("Classify").click()
    dock.finish()
    assert "good cells" in dock.viewer.layers


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


def test_a_layer_that_is_removed_under_review_ends_it(dock, crops):
    dock.viewer.add_image(crops[:5], name="slide")
    dock.button("Classify").click()
    dock.finish()
    dock.widget.tabs.setCurrentWidget(dock.widget.review)
    dock.viewer.layers.remove("slide cells")
    assert dock.widget.session is None
    assert not dock.widget.review.isEnabled()
    assert dock.said() == []
