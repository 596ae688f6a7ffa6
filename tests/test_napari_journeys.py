"""Whole journeys in a real window, from the menu on, by the keys and clicks of a user.

With ``WBC_SCREENSHOT_DIR`` set, the pictures of the documentation are written there.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import mouse
import numpy as np
import pandas as pd
import pytest
from napari.layers import Points, Shapes
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, QRect, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QListView,
    QProgressBar,
    QPushButton,
    QTabBar,
    QTableWidget,
    QTabWidget,
    QWidget,
)

from wbc_batch.errors import ExitCode
from wbc_batch.report import read_profile
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import write_slides
from wbc_napari.adapt_widget import AdaptWidget
from wbc_napari.zoom import camera

WIDTH, HEIGHT = 1366, 768
LEFT = Qt.MouseButton.LeftButton
CONTROL = Qt.KeyboardModifier.ControlModifier


def entry(menu, *path):
    """Return the action that one reaches by reading the names down through a menu."""
    for action in menu.actions():
        if action.text().replace("&", "").startswith(path[0]):
            return action if len(path) == 1 else entry(action.menu(), *path[1:])
    raise LookupError(f"{path[0]!r} is not among {[a.text() for a in menu.actions()]}")


def wbc_batch(*words):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-c", "from wbc_batch.cli import main; main()", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


class Desk:
    """A napari window, and what a user does in it."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.bot = viewer, qtbot
        self.main = viewer.window._qt_window
        self.main.resize(WIDTH, HEIGHT)
        notification_manager.records.clear()

    def menu(self, name, *path):
        entry(getattr(self.viewer.window, f"{name}_menu"), *path).trigger()

    def part(self, kind, text="", name=""):
        def found():
            parts = [w for w in self.main.findChildren(kind) if w.isVisible()]
            parts = [w for w in parts if not name or w.accessibleName() == name]
            return [w for w in parts if not text or w.text() == text]

        self.until(found)
        return found()[0]

    def click(self, text):
        button = self.part(QPushButton, text)
        self.until(button.isEnabled)
        self.bot.mouseClick(button, LEFT)

    def choose_reader(self):
        """Answer napari's question by which plugin a folder is to be opened, once it is asked."""
        dialog = QApplication.activeModalWidget()
        if dialog is None:
            QTimer.singleShot(50, self.choose_reader)
            return
        buttons = {button.text(): button for button in dialog.findChildren(QAbstractButton)}
        buttons["White blood cells"].setChecked(True)
        self.bot.mouseClick(buttons["OK"], LEFT)

    def tab(self, title):
        for bar in self.main.findChildren(QTabBar):
            for number in range(bar.count()):
                if bar.tabText(number) == title and bar.isVisible():
                    self.bot.mouseClick(bar, LEFT, pos=bar.tabRect(number).center())
                    return
        raise LookupError(title)

    def press(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        """Press a key on the canvas."""
        self.bot.keyClick(self.viewer.window._qt_viewer.canvas.native, key, modifier)

    def choose(self, box, text):
        """Choose from a combo box, by the keyboard."""
        box.setFocus()
        while box.currentText() != text:
            before = box.currentIndex()
            self.bot.keyClick(box, Qt.Key.Key_Down)
            assert box.currentIndex() > before, f"{text!r} is not offered"

    def until(self, condition):
        self.bot.waitUntil(lambda: bool(condition()), timeout=120_000)

    def classified(self, name, count):
        self.until(
            lambda: (
                name in self.viewer.layers
                and len(self.viewer.layers[name].features) == count
                and "status" in self.viewer.layers[name].features
                and self.part(QPushButton, "Classify").isEnabled()
            )
        )
        return self.viewer.layers[name]

    def complaints(self):
        kinds = [str(record.severity) for record in notification_manager.records]
        return [kind for kind in kinds if kind in ("error", "warning")]

    def picture(self, name):
        """Take a picture of the window; keep it where the documentation wants it."""
        self.bot.wait(400)
        picture = self.viewer.window.screenshot(canvas_only=False, flash=False)
        assert picture.shape[:2] == (HEIGHT, WIDTH)
        if folder := os.environ.get("WBC_SCREENSHOT_DIR"):
            imageio.imwrite(Path(folder) / f"{name}.png", picture)
        return picture


@pytest.fixture
def desk(make_napari_viewer, qtbot, own_journals):
    if QApplication.platformName() == "offscreen":
        pytest.skip("a real window needs an X server (pytest-xvfb starts one) or a desktop")
    there = Desk(make_napari_viewer(show=True), qtbot)
    yield there
    vars(there).clear()  # napari looks for what still holds its window


def test_a_stack_from_the_menu_to_the_files(desk, tmp_path, monkeypatch):
    desk.menu("plugins", "White blood cells", "Classify cells")
    desk.menu("file", "Open Sample", "White blood cells", "Drawn crops")
    drawn = np.array(desk.viewer.layers["Drawn crops"].metadata["drawn"])
    desk.click("Classify")
    points = desk.classified("Drawn crops cells", 60)
    assert (points.features["label"] == drawn).mean() > 0.8
    picture = desk.picture("classify")
    # A frame is on the canvas: the picture has the colour of the class that is shown.
    colour = np.rint(points.border_color[desk.viewer.dims.current_step[0], :3] * 255)
    assert (np.abs(picture[..., :3] - colour).max(axis=2) <= 8).sum() > 500

    desk.tab("Review")
    first = int(points.features["confidence"].to_numpy(float).argmin())
    desk.until(lambda: desk.viewer.dims.current_step[0] == first)  # the least confident one
    order = np.argsort(points.features["confidence"].to_numpy(float), kind="stable")
    for row in order[:8]:
        desk.press(str(CLASSES.index(drawn[row]) + 1))
    desk.press("u")
    desk.press(Qt.Key.Key_Space)
    said = points.features["reviewed_label"].to_numpy(object)
    assert said[order[:8]].tolist() == drawn[order[:8]].tolist()
    assert said[order[8]] == "unidentified"
    assert said[order[9]] == points.features["label"].iloc[order[9]]
    assert (said != "").sum() == 10
    desk.press("z", CONTROL)
    assert (points.features["reviewed_label"] != "").sum() == 9
    assert_fields_leave_the_keys(desk, points)
    desk.picture("review")

    desk.tab("Gallery")
    cells = desk.part(QListView, name="Gallery")
    desk.until(lambda: cells.model().rowCount() > 0)
    shown = cells.model().rows.tolist()
    desk.bot.mouseClick(
        cells.viewport(), LEFT, pos=cells.visualRect(cells.model().index(1)).center()
    )
    desk.until(lambda: desk.viewer.dims.current_step[0] == shown[1])
    desk.bot.wait(1000)
    desk.picture("gallery")
    assert_one_sees_which_class_is_shown(desk)

    desk.tab("Report")
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(folder))
    table = desk.part(QTableWidget, name="Differential")
    desk.until(lambda: sum(int(table.item(row, 1).text() or 0) for row in range(6)) == 9)
    desk.picture("report")
    desk.click("Export…")
    desk.until((folder / "gallery.png").exists)
    written = pd.read_csv(folder / "cells.csv", keep_default_na=False)
    assert written["label"].tolist() == points.features["label"].tolist()
    assert (written["reviewed_label"] != "").sum() == 9
    for name in ("differential.csv", "differential-reviewed.csv"):
        assert pd.read_csv(folder / name)["count"].sum() == 60
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert desk.complaints() == []


def assert_one_sees_which_class_is_shown(desk):
    bins = [
        b for b in desk.main.findChildren(QPushButton) if "Show the cells labeled" in b.toolTip()
    ]
    paper = {b: b.grab().toImage().pixelColor(4, b.height() // 2).name() for b in bins}
    (chosen,) = (b for b in bins if b.isChecked())
    assert paper.pop(chosen) not in paper.values()


def assert_fields_leave_the_keys(desk, points):
    """Whatever was clicked last, the next key labels a cell; here it is taken back again."""
    reader = desk.part(QLineEdit)
    before = (points.features["reviewed_label"].tolist(), reader.text())
    canvas = desk.viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    box = next(b for b in desk.main.findChildren(QCheckBox) if b.text() == "not yet reviewed")
    order = next(b for b in desk.main.findChildren(QComboBox) if "come first" in b.toolTip())
    for act in (
        lambda: desk.bot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2)),
        lambda: desk.bot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2)),
        lambda: (desk.bot.mouseClick(order, LEFT), order.hidePopup()),
        lambda: (desk.bot.mouseClick(reader, LEFT), desk.bot.keyClick(reader, Qt.Key.Key_Return)),
    ):
        act()
        desk.bot.keyClick(desk.main.focusWidget(), "2")
        assert points.features["reviewed_label"].tolist() != before[0]
        desk.bot.keyClick(desk.main.focusWidget(), "z", CONTROL)
        assert (points.features["reviewed_label"].tolist(), reader.text()) == before


def test_a_field_whose_cells_are_found_on_a_light_theme(desk):
    get_settings().appearance.theme = "light"
    desk.viewer.theme = "light"
    desk.menu("layers", "Classify", "Classify cells")
    desk.menu("file", "Open Sample", "White blood cells", "Drawn smear field")
    field = desk.viewer.layers["Drawn smear field"]
    drawn = field.metadata["boxes"]
    desk.viewer.layers.selection.active = field
    desk.click("Find cells")
    desk.until(lambda: any(isinstance(layer, Shapes) for layer in desk.viewer.layers))
    boxes = next(layer for layer in desk.viewer.layers if isinstance(layer, Shapes))
    desk.until(lambda: desk.part(QPushButton, "Classify").isEnabled())
    centres = np.array([np.asarray(shape).mean(axis=0)[::-1] for shape in boxes.data])
    true = drawn[:, :2] + drawn[:, 2:] / 2
    near = np.linalg.norm(centres[:, np.newaxis] - true[np.newaxis], axis=2).min(axis=0)
    assert (near < 0.25 * drawn[:, 2:].mean(axis=1)).mean() >= 0.9
    zoom = camera(desk.viewer).zoom
    desk.click("Classify")
    cells = desk.classified(boxes.name, len(boxes.data))
    assert (cells.features["status"] == "ok").all()
    assert camera(desk.viewer).zoom == zoom  # the whole field is seen until a cell is looked at
    desk.picture("field")
    desk.tab("Review")
    assert camera(desk.viewer).zoom > zoom
    desk.press("1")
    desk.press(Qt.Key.Key_Right)
    desk.press(Qt.Key.Key_Left)
    assert (cells.features["reviewed_label"] == "basophil").sum() == 1
    desk.picture("field-review")
    assert desk.complaints() == []


def test_a_batch_run_is_opened_corrected_saved_and_merged(desk, tmp_path, monkeypatch):
    run = run_with_an_error(tmp_path)
    said_before = pd.read_csv(run / "cells.csv")
    cells_before = (run / "cells.csv").read_bytes()

    desk.menu("plugins", "White blood cells", "Classify cells")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(run))
    QTimer.singleShot(0, desk.choose_reader)
    desk.menu("file", "Open Folder")
    cells = next(layer for layer in desk.viewer.layers if isinstance(layer, Points))
    assert cells.features["cell_id"].tolist() == said_before["cell_id"].tolist()
    desk.tab("Review")
    confidence = cells.features["confidence"].to_numpy(float)
    desk.until(lambda: desk.viewer.dims.current_step[0] == np.nanargmin(confidence))
    desk.press("1")
    desk.press("2")
    desk.press(Qt.Key.Key_Space)
    desk.picture("run")

    only = next(b for b in desk.main.findChildren(QComboBox) if "have this label" in b.toolTip())
    desk.choose(only, "not classified")
    failed = said_before[said_before["status"] == "error"]
    desk.until(lambda: desk.viewer.dims.current_step[0] == failed.index[0])
    about = [label.text() for label in desk.main.findChildren(QLabel) if label.isVisible()]
    assert any(f"Not classified: {failed['error'].iloc[0]}" in text for text in about)
    desk.press("4")

    desk.tab("Report")
    ranges = desk.part(QComboBox, name="Reference ranges")
    desk.choose(ranges, read_profile("dacie-lewis").title)
    path = tmp_path / "corrections.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    desk.click("Save corrections…")
    corrections = pd.read_csv(path)
    assert len(corrections) == 4
    assert set(corrections.columns) >= {"cell_id", "reviewed_label", "reviewed_by", "reviewed_at"}
    assert set(corrections["cell_id"]) <= set(said_before["cell_id"])
    assert corrections["reviewed_label"].tolist().count("basophil") >= 1
    desk.picture("run-report")

    desk.click("Copy as command")
    line = shlex.split(QApplication.clipboard().text())
    assert line[0] == "wbc-batch"
    merged = wbc_batch(*line[1:])
    assert merged.returncode == 0, merged.stderr
    assert (run / "cells.csv").read_bytes() == cells_before  # what the model said
    assert_merged(tmp_path / "run-reviewed", corrections)
    assert desk.complaints() == []


def run_with_an_error(folder):
    """Classify 24 drawn cells, one of which is no picture."""
    images = write_slides(folder / "drawn", slides=2, cells=12)
    images[5].write_bytes(b"no picture")
    run, slides = folder / "run", str(folder / "drawn" / "slides")
    ended = wbc_batch("classify", slides, "-o", str(run), "--device", "cpu", "--workers", "1")
    assert ended.returncode == ExitCode.CELL_ERRORS
    return run


def assert_merged(report, corrections):
    """The reviewed differential counts the reader's label where there is one, else the model's."""
    table = pd.read_csv(report / "cells.csv", keep_default_na=False).set_index("cell_id")
    for cell_id, label in corrections[["cell_id", "reviewed_label"]].itertuples(index=False):
        assert table.loc[cell_id, "reviewed_label"] == label
    labels = table["reviewed_label"].where(table["reviewed_label"] != "", table["label"])
    counts = pd.read_csv(report / "differential-reviewed.csv").groupby("label")["count"].sum()
    assert counts[counts > 0].to_dict() == labels.value_counts().to_dict()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_on_a_small_screen_and_tab_goes_down_the_page(desk, theme, qtbot):
    get_settings().appearance.theme = theme
    desk.viewer.theme = theme
    desk.menu("plugins", "White blood cells", "Classify cells")
    desk.menu("file", "Open Sample", "White blood cells", "Drawn crops")
    desk.click("Classify")
    desk.classified("Drawn crops cells", 60)
    for title in ("Classify", "Review", "Gallery", "Report"):
        desk.tab(title)
        desk.bot.wait(200)
        page = next(w for w in desk.main.findChildren(QTabWidget) if w.isVisible()).currentWidget()
        assert page.height() >= page.minimumSizeHint().height()
        parts = [w for w in page.findChildren(QWidget) if w.isVisible()]
        assert cut_off(page, parts) == [], title
        assert not jumps(page, parts), title
    desk.menu("plugins", "White blood cells", "Adapt to my laboratory")
    desk.bot.wait(200)
    page = next(w for w in desk.main.findChildren(AdaptWidget))
    assert (page.isVisible(), desk.main.height()) == (True, HEIGHT)
    parts = [w for w in page.findChildren(QWidget) if w.isVisible()]
    assert cut_off(page, parts) == []
    assert not jumps(page, parts)
    desk.picture(f"adapt-{theme}")


def cut_off(page, parts):
    """Texts that have less room than they need, and parts that reach out of the page."""
    found = []
    shown = (QLabel, QAbstractButton, QComboBox, QLineEdit, QProgressBar, QTableWidget, QListView)
    for part in (part for part in parts if isinstance(part, shown)):
        text = part.text() if isinstance(part, QLabel | QAbstractButton) else ""
        wraps = isinstance(part, QLabel) and part.wordWrap()
        need = part.fontMetrics().horizontalAdvance(text)
        if isinstance(part, QAbstractButton) and not part.icon().isNull():
            need += part.iconSize().width()
        narrow = not wraps and "\n" not in text and part.width() < need
        low = wraps and part.height() < part.heightForWidth(part.width())
        place = QRect(part.mapTo(page, QPoint()), part.size())
        if narrow or low or not page.rect().contains(place):
            found.append((type(part).__name__, text, place.getRect()))
    return found


def jumps(page, parts):
    """Places where Tab goes up the page, other than from its end to its beginning."""
    chain, part = [], page.nextInFocusChain()
    while part is not page and len(chain) < 500:
        wanted = part.focusPolicy() & Qt.FocusPolicy.TabFocus
        if part in parts and wanted and part.isEnabled() and not part.focusProxy():
            chain.append(part)
        part = part.nextInFocusChain()
    assert len(chain) > 1
    tops = [part.mapTo(page, part.rect().center()).y() for part in chain]
    pairs = zip(chain, tops, chain[1:], tops[1:], strict=False)
    return [(str(a), str(b)) for a, above, b, below in pairs if below < above - 12]


def test_cells_are_dragged_to_another_class_with_a_real_mouse(desk):
    desk.menu("plugins", "White blood cells", "Classify cells")
    desk.menu("file", "Open Sample", "White blood cells", "Drawn crops")
    desk.click("Classify")
    points = desk.classified("Drawn crops cells", 60)
    desk.tab("Gallery")
    cells = desk.part(QListView, name="Gallery")
    desk.until(lambda: cells.model().rowCount() > 1)
    dragged = cells.model().rows.tolist()[:2]
    first, second = (cells.visualRect(cells.model().index(n)).center() for n in range(2))
    desk.bot.mouseClick(cells.viewport(), LEFT, pos=first)
    desk.bot.mouseClick(cells.viewport(), LEFT, CONTROL, pos=second)
    target = next(
        b for b in desk.main.findChildren(QPushButton) if b.text().startswith("eosinophil")
    )
    start = cells.viewport().mapToGlobal(second)
    end = target.mapToGlobal(target.rect().center())
    thread = mouse.drag((start.x(), start.y()), (end.x(), end.y()))
    desk.until(lambda: not thread.is_alive())
    desk.until(lambda: (points.features["reviewed_label"] != "").sum() == 2)
    assert (points.features["reviewed_label"][dragged] == "eosinophil").all()
    assert desk.complaints() == []
