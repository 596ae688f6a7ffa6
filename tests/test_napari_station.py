"""The dock on cells that were classified before, on a viewer without a window: readers, blindness, keys."""

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from napari.layers._layer_actions import _duplicate_layer
from napari.utils.colormaps.standardize_color import transform_color
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QListView, QWidget
from reviews import add_cells, noise

from wbc_napari.batch_run import open_run, run_layers
from wbc_napari.blinding import whole_table
from wbc_napari.companions import crops_behind
from wbc_napari.export import Export, write_export
from wbc_napari.station import StationWidget

CONFIDENCE = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # the first cell is the most doubtful


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def dock(viewer, qtbot, own_journals):
    """The dock, its page Review open, on six cells."""
    add_cells(viewer, noise(6), confidence=CONFIDENCE)
    widget = StationWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    widget.tabs.setCurrentWidget(widget.review)
    read_as(widget, "ann")
    notification_manager.records.clear()
    return widget


def read_as(dock, name):
    dock.review.reader.setText(name)
    dock.review.reader.editingFinished.emit()


def tick(dock, text, checked):
    (box,) = (box for box in dock.review.findChildren(QCheckBox) if box.text() == text)
    box.setChecked(checked)


def press(dock, *keys):
    for key in keys:
        dock.review.acted.emit(key)


def test_a_reader_undoes_own_changes_only(dock):
    press(dock, "1", "2")
    read_as(dock, "bob")
    press(dock, "Control-Z")
    press(dock, "3", "Control-Z", "4")
    review = dock.session.review
    assert review.reader == dock.review.reader.text() == "bob"
    assert review.readings["ann"].label.tolist()[:3] == ["basophil", "eosinophil", ""]
    assert review.labels.tolist()[:2] == ["monocyte", ""]
    read_as(dock, "ann")
    press(dock, "Control-Z")
    assert review.labels.tolist()[:2] == ["basophil", ""]


def test_a_second_reader_begins_with_the_first_of_all_cells(dock):
    tick(dock, "not yet reviewed", True)
    press(dock, "1", "2", "3")
    dock.review.order_queue()
    assert dock.session.rows.tolist() == [3, 4, 5]
    read_as(dock, "bob")
    assert dock.session.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert dock.session.row == 0


def test_a_reader_without_a_name_is_refused_and_the_name_put_back(dock):
    read_as(dock, " ")
    assert dock.review.reader.text() == dock.session.review.reader == "ann"
    (said,) = notification_manager.records
    assert "needs the name of its reader" in str(said.message)


def test_the_keys_are_the_reviews_whatever_layer_is_selected(dock, viewer):
    before = viewer.add_points([[0, 10, 10]], name="mine")
    dock.tabs.setCurrentWidget(dock.gallery)
    layers = [before, viewer.add_labels(np.zeros((40, 40), int), name="new")]
    for layer, label in zip(layers, ("basophil", "eosinophil"), strict=True):
        keys = {str(key): action for key, action in layer.keymap.items()}
        row = dock.session.row
        keys[{"basophil": "1", "eosinophil": "2"}[label]](layer)
        assert dock.session.review.labels[row] == label
    dock.tabs.setCurrentWidget(dock.classify)
    viewer.add_points([[0, 5, 5]], name="later")
    assert not any(layer.keymap for layer in viewer.layers)


def test_a_layer_that_is_left_in_a_blind_review_shows_all_again(dock, viewer):
    layer = dock.session.layer
    colours = layer.border_color.copy()
    for leave in (
        lambda: dock.review_layer(add_cells(viewer, noise(6, seed=1), name="other")),
        lambda: close(dock),
    ):
        dock.review_layer(layer)
        tick(dock, "blind", True)
        assert set(layer.text.values) == {""}
        leave()
        assert layer.text.values[0] == "monocyte 40%"
        assert np.array_equal(layer.border_color, colours)


def close(dock):
    """Take the dock out of its window, as napari does when it is closed."""
    window = QWidget()
    dock.setParent(window)
    dock.setParent(None)


def test_history_place_and_order_outlive_that_a_cell_is_deleted(dock):
    tick(dock, "blind", True)
    session, layer = dock.session, dock.session.layer
    session.go(int(session.rows[0]))
    press(dock, "1", "2", "3")
    order, ids = session.rows.tolist(), session.review.cell_ids
    layer.selected_data = {order[1]}  # the second cell that was labelled
    layer.remove_selected()
    assert dock.session is not session
    left = [ids[row] for row in order if row != order[1]]
    assert (dock.session.seed, dock.session.blind) == (session.seed, True)
    assert dock.session.review.cell_ids[dock.session.rows].tolist() == left
    assert dock.session.review.cell_ids[dock.session.row] == ids[order[3]]
    press(dock, "Control-Z", "Control-Z")  # of the third cell, and of the first
    assert dock.session.review.undo() == ()
    assert not dock.session.review.reviewed.any()
    press(dock, "Control-Shift-Z")
    first = dock.session.review.cell_ids.tolist().index(ids[order[0]])
    assert dock.session.review.labels[first] == "basophil"


def test_where_the_present_cell_is_deleted_the_next_one_is(dock, viewer):
    press(dock, "Right", "Right")
    layer = dock.session.layer
    layer.selected_data = {2}
    layer.remove_selected()
    assert dock.session.row == 2
    assert dock.session.cells["index"][2] == 3
    assert viewer.dims.current_step[0] == 3


def told(layer):
    """All that napari tells of the first cell of a layer."""
    place = {"view_direction": None, "dims_displayed": [1, 2]}
    words = layer._get_tooltip_text(layer.data[0], **place)
    table = f"{layer.features.to_csv()} {layer.feature_defaults.to_csv()}"
    return f"{words} {layer.get_status(layer.data[0], **place)} {table} {layer.text.values}"


def test_a_blind_reader_is_told_nothing_of_the_model_by_napari(dock):
    layer = dock.session.layer
    before = layer.features.copy()
    assert "prob_monocyte" in told(layer)
    tick(dock, "blind", True)
    for word in ("monocyte", "0.4", "predicted", "confidence"):
        assert word not in told(layer)
    dock.session.go(0)
    press(dock, "1")
    dock.session.go(0)
    assert "reviewed_label: basophil" in told(layer)
    assert dock.session.cells["reviewed_label"][0] == "basophil"
    whole = whole_table(layer)
    tick(dock, "blind", False)
    pd.testing.assert_frame_equal(layer.features, whole)
    unreviewed = [name for name in before if not name.startswith("reviewed")]
    pd.testing.assert_frame_equal(layer.features[unreviewed], before[unreviewed])


def test_a_blind_review_begins_with_its_first_cell_and_shows_no_colour_of_a_class(dock):
    layer = dock.session.layer
    grey = np.full(4, 0xBB / 255, np.float32)
    grey[3] = 1
    for row in range(len(layer.data)):
        dock.session.go(row)
        tick(dock, "blind", True)
        assert dock.session.place == 0
        np.testing.assert_allclose(transform_color(layer.current_border_color)[0], grey)
        np.testing.assert_allclose(layer.border_color, np.tile(grey, (len(layer.data), 1)))
        here = dock.session.row
        tick(dock, "blind", False)
        assert dock.session.row == here


def test_what_the_model_said_stays_with_its_cells_where_one_is_deleted_meanwhile(dock):
    layer = dock.session.layer
    before = layer.features.set_index("cell_id")["confidence"]
    tick(dock, "blind", True)
    layer.selected_data = {2}
    layer.remove_selected()
    assert "confidence" not in layer.features
    tick(dock, "blind", False)
    after = layer.features.set_index("cell_id")["confidence"]
    pd.testing.assert_series_equal(after, before.drop(before.index[2]))


def opened(dock, folder, cells):
    """Export cells of the present session as a run, and open that; return the layer of its cells."""
    list(write_export(Export(folder, cells, dock.session.crops, {"name": "m"})))
    image, points = (Layer.create(*data) for data in run_layers(open_run(folder)))
    dock._viewer.add_layer(image)
    return dock._viewer.add_layer(points)


@pytest.mark.usefixtures("blank_drawings")
def test_a_blind_reader_is_not_told_what_a_table_said_of_a_cell_or_where_it_lies(dock, tmp_path):
    cells = dock.session.cells.assign(group="in monocytes", given_label="neutrophil")
    layer = opened(dock, tmp_path / "monocyte", cells)
    layer.name = "cells"
    layer.features = layer.features.assign(store=None, position=np.nan)  # as of cells in files
    dock.review_layer(layer)
    before, crops = layer.features.copy(), dock.session.crops
    assert "in monocytes" in told(layer)
    tick(dock, "blind", True)
    for word in ("monocyte", "neutrophil", "member", "group", "store", ".png"):
        assert word not in told(layer)
    assert before["cell_id"][0] in told(layer)
    dock.session.relabel([0], "basophil")
    dock.gallery.show_label("basophil")
    first = dock.gallery.findChild(QListView).model().index(0)
    assert first.data(Qt.ItemDataRole.ToolTipRole) == before["cell_id"][0]
    # An export and an adaptation meanwhile have all.
    behind = crops_behind(dock._viewer, layer)
    assert [behind.cell(row) for row in range(6)] == [crops.cell(row) for row in range(6)]
    written = Export(tmp_path / "blind", dock.session.cells.copy(), crops, {"name": "m"})
    list(write_export(written))
    table = open_run(tmp_path / "blind").cells
    names = ["source", "member", "group", "given_label", "label"]
    pd.testing.assert_frame_equal(table[names], before[names])
    tick(dock, "blind", False)
    after = layer.features
    assert after.columns.tolist() == before.columns.tolist()
    unreviewed = [name for name in before if not name.startswith("reviewed")]
    pd.testing.assert_frame_equal(after[unreviewed], before[unreviewed])


def duplicate(viewer, layer):
    """Copy a layer as napari does from the menu of its list."""
    viewer.layers.selection.active = layer
    _duplicate_layer(viewer.layers)
    return viewer.layers[viewer.layers.index(layer) + 1]


@pytest.mark.parametrize("blind", [False, True])
def test_a_copy_of_the_reviewed_layer_is_a_layer_of_its_own(dock, viewer, blind):
    layer = dock.session.layer
    before = layer.features.drop(columns=["reviewed_label", "reviewed_by", "reviewed_at"])
    tick(dock, "blind", blind)
    copy = duplicate(viewer, layer)
    assert ("monocyte" in told(copy)) != blind
    # The review of the copy begins and ends; that of the other one is as it was.
    dock.review_layer(copy)
    assert (dock.session.layer, dock.session.blind) == (copy, blind)
    dock.session.relabel([0], "basophil")
    dock.review_layer(layer)
    assert (dock.session.layer, dock.session.blind) == (layer, blind)
    for of in (layer, copy):
        there = whole_table(of)[before.columns]
        pd.testing.assert_frame_equal(there, before, check_dtype=False)  # napari copies text as str
    tick(dock, "blind", False)
    assert "prob_monocyte" in told(layer)


@pytest.mark.parametrize(
    "end",
    [
        lambda dock: tick(dock, "blind", False),
        lambda dock: dock.review_layer(None),
        lambda dock: close(dock),
    ],
)
def test_a_copy_from_a_blind_review_shows_all_when_that_ends_and_not_before(dock, viewer, end):
    layer = dock.session.layer
    before = layer.features
    tick(dock, "blind", True)
    copy = duplicate(viewer, layer)
    layer.selected_data = {5}
    layer.remove_selected()  # the review begins anew
    assert dock.session.blind
    assert "monocyte" not in told(copy)
    end(dock)
    pd.testing.assert_frame_equal(copy.features, before, check_dtype=False)
    assert copy.text.values[0] == "monocyte 40%"


def test_where_a_layer_cannot_be_reviewed_no_page_labels_the_one_before(dock, viewer):
    session, layer = dock.session, dock.session.layer
    other = add_cells(viewer, noise(6, seed=1), name="other")
    other.features = other.features.drop(columns="label")
    with pytest.raises(KeyError):
        dock.review_layer(other)
    press(dock, "1")
    assert not session.review.reviewed.any()
    assert (layer.features["reviewed_label"] == "").all()


def test_keys_outside_the_gallery_label_what_is_selected_in_it_or_else_the_present_cell(
    dock, viewer, qtbot
):
    dock.tabs.setCurrentWidget(dock.gallery)
    dock.gallery.show_label("monocyte")
    cells, review = dock.gallery.findChild(QListView), dock.session.review
    places = [cells.visualRect(cells.model().index(place)).center() for place in range(6)]
    control = Qt.KeyboardModifier.ControlModifier

    def on_canvas(key):
        keys = {str(bound): action for bound, action in viewer.layers[0].keymap.items()}
        keys[key](viewer.layers[0])

    for place in (0, 2):
        qtbot.mouseClick(cells.viewport(), Qt.MouseButton.LeftButton, control, pos=places[place])
    qtbot.keyClick(dock, "1")
    assert review.labels.tolist() == ["basophil", "", "basophil", "", "", ""]
    cells.selectionModel().clear()
    for place in (1, 2):
        qtbot.mouseClick(cells.viewport(), Qt.MouseButton.LeftButton, control, pos=places[place])
    on_canvas("Space")
    assert review.labels.tolist() == ["basophil", "", "basophil", "monocyte", "monocyte", ""]
    # The canvas goes to a cell of another class: that one, and no other, is meant.
    dock.session.go(0)
    on_canvas("2")
    assert review.labels.tolist() == ["eosinophil", "", "basophil", "monocyte", "monocyte", ""]


@pytest.mark.usefixtures("blank_drawings")
def test_an_export_whose_crops_are_gone_says_so(dock, tmp_path, qtbot):
    cells = dock.session.cells.copy()
    cells.loc[0, ["status", "error"]] = ["error", "never could be read"]
    dock.review_layer(opened(dock, tmp_path / "run", cells))
    for crops, said in ((tmp_path / "run" / "crops", ""), (tmp_path / "gone", "5 crops could not")):
        (tmp_path / "run" / "crops").rename(crops)
        dock.report.export(tmp_path / "out")
        begins = f"The results were written to {tmp_path / 'out'}"
        qtbot.waitUntil(lambda: bool(notification_manager.records), timeout=60_000)
        (told_then,) = notification_manager.records
        assert str(told_then.message).startswith(begins)
        assert said in str(told_then.message)
        assert (str(told_then.severity) == "error") == bool(said)
        qtbot.waitUntil(lambda: dock.report._worker is None)
        notification_manager.records.clear()
    assert (tmp_path / "out" / "cells.csv").exists()
