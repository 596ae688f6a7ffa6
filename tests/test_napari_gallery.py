"""Gallery, card and differential of a review, by real keys, clicks and drops."""

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPointF, Qt
from qtpy.QtGui import QDropEvent, QIcon
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLabel,
    QListView,
    QProgressBar,
    QPushButton,
    QTableWidget,
)
from reviews import add_cells

from wbc_batch.errors import ImageError
from wbc_batch.report import differential, group_flags, read_profile
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cells
from wbc_napari.cell_card import CellCard
from wbc_napari.differential_view import DifferentialView
from wbc_napari.gallery_model import CELL_ROWS
from wbc_napari.gallery_view import GalleryView
from wbc_napari.pictures import fitted
from wbc_napari.session import Session

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(scope="module")
def drawn():
    return draw_cells(20, seed=1, size=48)


def session_of(tmp_path, drawn, count):
    """Begin a review of drawn cells whose confidence falls with their number."""
    crops, labels = drawn
    viewer = ViewerModel()
    pixels = np.resize(crops, (count, *crops.shape[1:]))
    cells = add_cells(viewer, pixels, labels, np.linspace(0.99, 0.3, count))
    return Session(viewer, cells, "ann", tmp_path / "journal.csv")


@pytest.fixture
def session(tmp_path, drawn):
    return session_of(tmp_path, drawn, 60)


@pytest.fixture
def gallery(session, qtbot):
    view = GalleryView()
    qtbot.addWidget(view)
    view.resize(420, 500)
    view.show()
    view.set_session(session)
    yield view
    view.set_session(None)


def bins(view):
    return {b.text().rsplit(" ", 1)[0]: b for b in view.findChildren(QPushButton) if b.isVisible()}


def shown_rows(view):
    return view.findChild(QListView).model().rows.tolist()


def place(cells, index):
    return cells.visualRect(cells.model().index(index)).center()


def test_the_bins_count_and_show_the_least_confident_cells_first(gallery, session, qtbot):
    labels = session.labels()
    assert {name: int(b.text().rsplit(" ", 1)[1]) for name, b in bins(gallery).items()} == {
        **{label: int((labels == label).sum()) for label in CLASSES},
        "unidentified": 0,
    }
    qtbot.mouseClick(bins(gallery)["monocyte"], LEFT)
    expected = np.flatnonzero(labels == "monocyte")[::-1]  # confidence falls with the row
    assert shown_rows(gallery) == expected.tolist()


def test_a_click_goes_to_the_cell_on_the_canvas(gallery, session, qtbot):
    cells = gallery.findChild(QListView)
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 2))
    assert session.row == shown_rows(gallery)[2]
    assert session.viewer.dims.current_step[0] == session.row


def test_keys_relabel_what_is_selected_in_one_step_of_the_history(gallery, session, qtbot):
    gallery.show_label("basophil")
    cells = gallery.findChild(QListView)
    before = shown_rows(gallery)
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 0))
    qtbot.mouseClick(cells.viewport(), LEFT, Qt.KeyboardModifier.ShiftModifier, pos=place(cells, 2))
    qtbot.keyClick(cells, "4")
    assert session.review.labels[before[:3]].tolist() == ["monocyte"] * 3
    assert shown_rows(gallery) == before[3:]
    qtbot.keyClick(cells, "Z", Qt.KeyboardModifier.ControlModifier)
    assert not session.review.reviewed.any()
    assert sorted(shown_rows(gallery)) == sorted(before)
    qtbot.keyClick(
        cells, "Z", Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    assert shown_rows(gallery) == before[3:]


def test_after_a_key_the_next_cell_is_chosen(gallery, session, qtbot):
    gallery.show_label("eosinophil")
    cells = gallery.findChild(QListView)
    before = shown_rows(gallery)
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 0))
    for number in range(3):
        qtbot.keyClick(cells, "u")
        # It is the one that is shown large, too.
        assert session.row == before[number + 1]
        assert cells.currentIndex().row() == 0
    qtbot.keyClick(cells, Qt.Key.Key_Right)
    assert session.row == before[4]
    assert session.review.labels[before[:3]].tolist() == ["unidentified"] * 3
    assert shown_rows(gallery) == before[3:]


def test_keys_that_leave_a_cell_in_its_place_go_on_as_well(gallery, session, qtbot):
    gallery.show_label("neutrophil")
    cells = gallery.findChild(QListView)
    rows = shown_rows(gallery)
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 1))
    for number, key in enumerate((Qt.Key.Key_Space, "5"), 1):
        qtbot.keyClick(cells, key)
        assert session.row == rows[number + 1]
        assert cells.currentIndex().row() == number + 1
        assert cells.model().index(number).data().startswith("✓")
    assert session.review.labels[rows[1:3]].tolist() == ["neutrophil"] * 2
    assert shown_rows(gallery) == rows


def test_after_several_cells_their_keys_go_on_behind_the_last_one(gallery, session, qtbot):
    gallery.show_label("basophil")
    cells = gallery.findChild(QListView)
    rows = shown_rows(gallery)
    control = Qt.KeyboardModifier.ControlModifier
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 0))
    qtbot.mouseClick(cells.viewport(), LEFT, control, pos=place(cells, 2))
    qtbot.keyClick(cells, "4")
    assert session.row == rows[3]
    assert shown_rows(gallery) == [rows[1], *rows[3:]]
    qtbot.keyClick(cells, "A", control)
    qtbot.keyClick(cells, Qt.Key.Key_Space)  # there is none behind all of them
    assert session.row == rows[-1]


def test_cells_that_are_dropped_on_a_bin_get_its_label(gallery, session):
    cells = gallery.findChild(QListView)
    dragged = shown_rows(gallery)[1:3]
    data = cells.model().mimeData([cells.model().index(1), cells.model().index(2)])
    assert isinstance(data, QMimeData)
    assert data.hasFormat(CELL_ROWS)
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, LEFT, Qt.KeyboardModifier.NoModifier
    )
    bins(gallery)["lymphocyte"].dropEvent(event)
    assert session.review.labels[dragged].tolist() == ["lymphocyte"] * 2


def test_pictures_are_read_when_they_come_into_view_and_not_before(tmp_path, drawn, qtbot):
    session = session_of(tmp_path, drawn, 3000)
    asked = []
    read = type(session.crops).read

    class Counted(type(session.crops)):
        def read(self, wanted):
            asked.extend(wanted)
            return read(self, wanted)

    object.__setattr__(session.crops, "__class__", Counted)
    view = GalleryView()
    qtbot.addWidget(view)
    view.resize(420, 500)
    view.show()
    view.set_session(session)
    cells = view.findChild(QListView)
    first = shown_rows(view)[0]
    qtbot.waitUntil(lambda: first in asked, timeout=10_000)
    qtbot.wait(300)
    assert len(set(asked)) < 200
    icon = cells.model().index(0).data(Qt.ItemDataRole.DecorationRole)
    shown, selected = (
        icon.pixmap(cells.iconSize(), mode).toImage()
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)
    )
    assert shown.pixelColor(38, 38).alpha() == 255
    assert selected == shown  # a tint would change the stain
    view.set_session(None)


def test_in_blind_mode_the_gallery_says_nothing_of_the_model(gallery, session):
    session.set_blind(7)
    assert all(b.text().endswith(" 0") for b in bins(gallery).values())
    session.relabel([3, 9], "monocyte")
    gallery.show_label("monocyte")
    assert sorted(shown_rows(gallery)) == [3, 9]
    index = gallery.findChild(QListView).model().index(0)
    assert index.data().strip() == "✓"
    assert "model" not in index.data(Qt.ItemDataRole.ToolTipRole)


def test_cells_that_could_not_be_classified_have_a_bin_that_says_why(gallery, session, qtbot):
    assert "not classified" not in bins(gallery)
    errors = {"status": "error", "label": "", "predicted": "", "error": "the file is cut off"}
    for name, value in errors.items():
        session.cells.loc[[4, 8], name] = value
    session.relabel([0], "monocyte")  # whatever makes the gallery look again
    qtbot.mouseClick(bins(gallery)["not classified"], LEFT)
    assert sorted(shown_rows(gallery)) == [4, 8]
    cells = gallery.findChild(QListView)
    assert "the file is cut off" in cells.model().index(0).data(Qt.ItemDataRole.ToolTipRole)
    first = shown_rows(gallery)[0]
    qtbot.mouseClick(cells.viewport(), LEFT, pos=place(cells, 0))
    qtbot.keyClick(cells, "3")  # a person can see a cell in what the model could not read
    assert session.labels()[first] == "lymphocyte"
    assert first not in shown_rows(gallery)


def test_a_gallery_that_is_hidden_catches_up_when_it_is_shown(gallery, session):
    gallery.show_label("basophil")
    first = shown_rows(gallery)[0]
    gallery.hide()
    session.relabel([first], "monocyte")
    gallery.show()
    assert first not in shown_rows(gallery)
    count = int((session.labels() == "monocyte").sum())
    assert bins(gallery)["monocyte"].text() == f"monocyte {count}"


def test_a_name_is_not_taken_for_html(gallery, session):
    session.cells["member"] = "s1/<h1>model: lymphocyte 1.000.jpg"
    tip = gallery.findChild(QListView).model().index(0).data(Qt.ItemDataRole.ToolTipRole)
    assert "model: lymphocyte 1.000.jpg" in tip
    assert not Qt.mightBeRichText(tip)


def test_a_crop_that_is_none_leaves_a_gap():
    assert fitted(ImageError("gone"), 20).max() == 0
    assert fitted(np.zeros((30, 60, 3), np.uint8), 20)[..., 3].sum() == 10 * 20 * 255


def test_the_card_shows_the_crop_and_what_the_model_saw(session, qtbot):
    from dataclasses import asdict

    from wbc_batch.classifier import read_bundle

    session.model["preprocessing"] = asdict(read_bundle("default").preprocessing)
    card = CellCard()
    qtbot.addWidget(card)
    card.show()
    card.set_session(session)
    session.go(5)
    qtbot.wait(50)
    shown = [label for label in card.findChildren(QLabel) if label.accessibleName()]
    original, canonical = (label.pixmap().toImage() for label in shown)
    assert original.pixelColor(70, 70).alpha() == canonical.pixelColor(70, 70).alpha() == 255
    assert original != canonical
    card.set_session(None)
    assert shown[0].pixmap().toImage().pixelColor(70, 70).alpha() == 0


def test_to_a_blind_reader_the_card_names_no_file(session, qtbot, monkeypatch):
    def unreadable(*_):
        raise ImageError("monocytes/1.jpg is cut off")

    monkeypatch.setattr("wbc_napari.cell_card.read_one", unreadable)
    card = CellCard()
    qtbot.addWidget(card)
    session.go(5)
    for seed, said in ((None, "monocytes/1.jpg is cut off"), (7, "there is no picture")):
        session.seed = seed
        card.set_session(session)
        card.refresh()
        tips = [label.toolTip() for label in card.findChildren(QLabel) if label.accessibleName()]
        assert all(said in tip for tip in tips)
        assert len(tips) == 2
    card.set_session(None)


@pytest.fixture
def counted(session, qtbot):
    view = DifferentialView()
    qtbot.addWidget(view)
    view.show()
    view.set_session(session)
    yield view
    view.set_session(None)


def texts(view, column):
    table = view.findChild(QTableWidget)
    return [table.item(row, column).text() for row in range(table.rowCount())]


def test_reviewed_and_unreviewed_cells_are_counted_apart_with_the_limits_of_the_report(
    counted, session, qtbot
):
    session.relabel(range(10), "monocyte")
    session.relabel(range(10, 14), "basophil")
    session.relabel([14], "unidentified")
    qtbot.waitUntil(lambda: texts(counted, 1)[3] == "10")
    assert texts(counted, 1) == ["4", "0", "0", "10", "0", "1"]
    said = pd.DataFrame({"label": session.review.labels[:15], "confidence": 0.5})
    expected = differential(said)
    assert texts(counted, 2)[:5] == [f"{p:.1f}" for p in expected["percent"][:5]]
    limits = expected[["lower", "upper"]].to_numpy()[:5]
    assert texts(counted, 3)[:5] == [f"{low:.1f} – {high:.1f}" for low, high in limits]
    model = session.cells["label"][15:]
    assert texts(counted, 5)[:5] == [str((model == label).sum()) for label in CLASSES]
    session.set_blind(1)
    qtbot.waitUntil(lambda: texts(counted, 5) == [""] * 6)


def choose_ranges(view, title):
    box = next(b for b in view.findChildren(QComboBox) if b.accessibleName() == "Reference ranges")
    box.setCurrentIndex(box.findText(title))
    box.activated.emit(box.currentIndex())
    return box


def shown_flags(view):
    labels = [b.text() for b in view.findChildren(QLabel) if b.isVisible() and "(" in b.text()]
    return labels[0].splitlines() if labels else []


def test_shares_are_held_against_a_profile_with_the_flags_of_the_report(tmp_path, drawn, qtbot):
    session = session_of(tmp_path, drawn, 130)
    view = DifferentialView()
    qtbot.addWidget(view)
    view.show()
    view.set_session(session)
    session.relabel(range(60), "neutrophil")
    session.relabel(range(60, 120), "monocyte")
    qtbot.waitUntil(lambda: texts(view, 1)[3] == "60")
    assert view.findChild(QTableWidget).isColumnHidden(4)
    assert shown_flags(view) == []
    profile = read_profile("dacie-lewis")
    choose_ranges(view, profile.title)
    assert texts(view, 4) == [*(str(profile.percent[label]) for label in CLASSES), ""]
    assert not view.findChild(QTableWidget).isColumnHidden(4)
    said = session.cells.iloc[:120].assign(label=session.review.labels[:120])
    expected = group_flags(differential(said[["label", "confidence", "novelty"]]), profile)
    assert [flag.label for flag in expected] == ["lymphocyte", "monocyte"]
    marks = {"below": "▼", "above": "▲"}
    assert shown_flags(view) == [
        f"{marks[flag.side]} {flag.label}: {flag.flag} ({flag.detail})" for flag in expected
    ]
    assert texts(view, 2)[3] == "▲ 50.0"
    view.set_session(None)


def test_ranges_of_ones_own_come_from_a_file_and_a_bad_one_is_told(counted, tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(own), ""))
    own.write_text("title: Ours\npercent: {monocyte: [1, 2, 3]}\n")
    notification_manager.records.clear()
    assert choose_ranges(counted, "from a file…").currentText() == "none"
    (record,) = notification_manager.records
    assert "own.yaml" in str(record.message)
    own.write_text("title: Ours\npercent: {monocyte: [1, 2]}\n")
    assert choose_ranges(counted, "from a file…").currentText() == "Ours"
    assert texts(counted, 4)[3] == "1–2"


def test_the_target_is_marked_when_it_is_reached(tmp_path, drawn, qtbot):
    session = session_of(tmp_path, drawn, 130)
    view = DifferentialView()
    qtbot.addWidget(view)
    view.show()
    view.set_session(session)
    bar = view.findChild(QProgressBar)
    session.relabel(range(99), "neutrophil")
    session.relabel([99], "unidentified")  # of no class, so it does not count
    qtbot.waitUntil(lambda: bar.format() == "99 of 100 cells")
    session.relabel([100], "neutrophil")
    qtbot.waitUntil(lambda: bar.format() == "✓ 100 cells: reached")
    view.set_session(None)
