"""Whole journeys in a real window, from the menu on, by the keys and clicks of a user.

With ``WBC_SCREENSHOT_DIR`` set, the pictures of the documentation are written there.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QListView,
    QPushButton,
    QTabBar,
    QTableWidget,
)

from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import write_slides

pytestmark = pytest.mark.window

WIDTH, HEIGHT = 1366, 768
LEFT = Qt.MouseButton.LeftButton
CONTROL = Qt.KeyboardModifier.ControlModifier


def entry(menu, *path):
    """Return the action that one reaches by reading the names down through a menu."""
    for action in menu.actions():
        if action.text().replace("&", "").startswith(path[0]):
            return action if len(path) == 1 else entry(action.menu(), *path[1:])
    raise LookupError(f"{path[0]!r} is not among {[a.text() for a in menu.actions()]}")


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

    def until(self, condition):
        self.bot.waitUntil(lambda: bool(condition()), timeout=60_000)

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
def desk(make_napari_viewer, qtbot, tmp_path, monkeypatch):
    if QApplication.platformName() == "offscreen":
        pytest.skip("a real window needs an X server (pytest-xvfb starts one) or a desktop")
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "journals")
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
    counts = pd.read_csv(folder / "differential.csv")
    assert counts["count"].sum() == 60
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert desk.complaints() == []


def test_a_field_whose_cells_are_found_on_a_light_theme(desk):
    get_settings().appearance.theme = "light"
    desk.viewer.theme = "light"
    desk.menu("layers", "Classify", "Classify cells")
    desk.menu("file", "Open Sample", "White blood cells", "Drawn smear field")
    field = desk.viewer.layers["Drawn smear field"]
    drawn = field.metadata["boxes"]
    desk.viewer.layers.selection.active = field
    desk.click("Find cells")
    desk.until(lambda: any(layer._type_string == "shapes" for layer in desk.viewer.layers))
    boxes = next(layer for layer in desk.viewer.layers if layer._type_string == "shapes")
    desk.until(lambda: desk.part(QPushButton, "Classify").isEnabled())
    centres = np.array([np.asarray(shape).mean(axis=0)[::-1] for shape in boxes.data])
    true = drawn[:, :2] + drawn[:, 2:] / 2
    near = np.linalg.norm(centres[:, np.newaxis] - true[np.newaxis], axis=2).min(axis=0)
    assert (near < 0.25 * drawn[:, 2:].mean(axis=1)).mean() >= 0.9
    desk.click("Classify")
    cells = desk.classified(boxes.name, len(boxes.data))
    assert (cells.features["status"] == "ok").all()
    desk.picture("field")
    desk.tab("Review")
    desk.press("1")
    desk.press(Qt.Key.Key_Right)
    desk.press(Qt.Key.Key_Left)
    assert (cells.features["reviewed_label"] == "basophil").sum() == 1
    desk.picture("field-review")
    assert desk.complaints() == []


def test_a_batch_run_is_opened_corrected_saved_and_merged(desk, tmp_path, monkeypatch):
    write_slides(tmp_path / "drawn", slides=2, cells=12)
    run = tmp_path / "run"
    command = [sys.executable, "-c", "from wbc_batch.cli import main; main()", "classify"]
    command += [str(tmp_path / "drawn" / "slides"), "-o", str(run), "--device", "cpu"]
    subprocess.run([*command, "--workers", "1"], check=True, capture_output=True)
    said_before = pd.read_csv(run / "cells.csv")

    desk.menu("plugins", "White blood cells", "Classify cells")
    desk.viewer.open(str(run), plugin="wbc-napari")
    cells = next(layer for layer in desk.viewer.layers if layer._type_string == "points")
    assert cells.features["cell_id"].tolist() == said_before["cell_id"].tolist()
    desk.tab("Review")
    confidence = cells.features["confidence"].to_numpy(float)
    desk.until(lambda: desk.viewer.dims.current_step[0] == confidence.argmin())
    desk.press("1")
    desk.press("2")
    desk.press(Qt.Key.Key_Space)
    desk.picture("run")

    desk.tab("Report")
    path = tmp_path / "corrections.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    desk.click("Save corrections…")
    corrections = pd.read_csv(path)
    assert len(corrections) == 3
    assert set(corrections.columns) >= {"cell_id", "reviewed_label", "reviewed_by", "reviewed_at"}
    assert set(corrections["cell_id"]) <= set(said_before["cell_id"])
    assert corrections["reviewed_label"].tolist().count("basophil") >= 1
    pd.testing.assert_frame_equal(
        pd.read_csv(run / "cells.csv"), said_before
    )  # nothing overwritten
    assert desk.complaints() == []
