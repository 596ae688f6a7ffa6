"""The dock widget on a viewer that is not shown: what buttons do, and what bad input does."""

import importlib.util
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from napari.layers import Image, Points
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QTableWidget,
)
from superqt.utils import WorkerBase

from wbc_batch.classifier import Classifier
from wbc_batch.errors import ImageError
from wbc_batch.report import differential
from wbc_batch.schema import CELL_COLUMNS, CLASSES
from wbc_batch.synthetic import draw_cells
from wbc_napari.layers import BATCH
from wbc_napari.widget import ClassifyWidget


@pytest.fixture(scope="module")
def crops():
    return draw_cells(134, seed=5, size=96)[0]


@pytest.fixture
def dock(make_napari_viewer, qtbot):
    """Return a viewer with the widget docked, and what tests do with the two."""
    viewer = make_napari_viewer()
    widget = ClassifyWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Classify cells")
    notification_manager.records.clear()

    def button(text):
        return next(b for b in widget.findChildren(QPushButton) if b.text() == text)

    def finish():
        qtbot.waitUntil(lambda: button("Classify").isEnabled(), timeout=60_000)

    def said():
        return [str(record.message) for record in notification_manager.records]

    table = widget.findChild(QTableWidget)
    return SimpleNamespace(
        viewer=viewer, widget=widget, button=button, finish=finish, said=said, table=table
    )


def cell_text(table):
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def test_one_click_classifies_and_shows_the_differential(dock, crops):
    dock.viewer.add_image(crops, name="slide")
    dock.button("Classify").click()
    dock.finish()
    points = dock.viewer.layers["slide cells"]
    assert isinstance(points, Points)
    assert tuple(points.features.columns) == CELL_COLUMNS
    assert points.features["index"].tolist() == list(range(134))
    expected = differential(points.features)
    shown = cell_text(dock.table)
    assert [row[0] for row in shown] == expected["label"].tolist()
    assert [int(row[1]) for row in shown] == expected["count"].tolist()
    assert [row[2] for row in shown[:5]] == [f"{p:.1f}" for p in expected["percent"][:5]]
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
    assert len(dock.viewer.layers["slide cells"].data) == 128
    assert "128 of 134" in dock.widget.findChild(QProgressBar).text()
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
        return [c for c in callbacks if isinstance(c, tuple) and c[0]() is dock.widget]

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
    model = dock.widget.findChild(QLineEdit)
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
    assert cell_text(dock.table)[-1][:2] == ["error", "1"]
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


def test_the_tables_are_saved_as_a_batch_run_writes_them(dock, crops, tmp_path, monkeypatch):
    assert not dock.button("Save CSV…").isEnabled()
    dock.viewer.add_image(crops[:12], name="slide")
    dock.button("Classify").click()
    dock.finish()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(tmp_path))
    dock.button("Save CSV…").click()
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert tuple(cells.columns) == CELL_COLUMNS
    features = dock.viewer.layers["slide cells"].features
    assert cells["label"].tolist() == features["label"].tolist()
    np.testing.assert_allclose(cells["confidence"], features["confidence"], atol=1e-6)
    table = pd.read_csv(tmp_path / "differential.csv")
    assert table["count"].sum() == 12
    assert set(CLASSES) < set(table["label"])


def test_a_folder_that_cannot_be_written_to_is_told(dock, crops, tmp_path):
    dock.viewer.add_image(crops[:3], name="slide")
    dock.button("Classify").click()
    dock.finish()
    dock.widget.save(tmp_path / "nowhere")
    assert len(dock.said()) == 1
    assert "nowhere" in dock.said()[0]


def test_the_table_follows_the_chosen_stack(dock, crops):
    dock.viewer.add_image(crops[:3], name="first")
    dock.button("Classify").click()
    dock.finish()
    assert dock.table.rowCount() > 0
    dock.viewer.add_image(crops[:3], name="second")
    stacks = dock.widget.findChild(QComboBox)
    stacks.setCurrentText("second")
    assert dock.table.rowCount() == 0
    stacks.setCurrentText("first")
    assert dock.table.rowCount() > 0
    dock.viewer.layers.remove("first cells")
    assert dock.table.rowCount() == 0
