"""One whole journey in a real window: from the menu to the labelled stack.

With ``WBC_SCREENSHOT_DIR`` set, the picture of the README is written there as ``plugin.png``.
"""

import importlib.util
import os
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

if importlib.util.find_spec("napari") is None:
    pytest.skip("napari is not installed", allow_module_level=True)

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QPushButton, QTableWidget

WIDTH, HEIGHT = 1366, 768


def entry(menu, *path):
    """Return the action that one reaches by reading the names down through a menu."""
    for action in menu.actions():
        if action.text().replace("&", "").startswith(path[0]):
            return action if len(path) == 1 else entry(action.menu(), *path[1:])
    raise LookupError(f"{path[0]!r} is not among {[a.text() for a in menu.actions()]}")


@pytest.fixture
def window(make_napari_viewer):
    if QApplication.platformName() == "offscreen":
        pytest.skip("a real window needs an X server (pytest-xvfb starts one) or a desktop")
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(WIDTH, HEIGHT)
    return viewer


@pytest.mark.window
def test_from_the_menu_to_a_labelled_stack(window, qtbot, tmp_path):
    viewer, main = window, window.window._qt_window
    entry(viewer.window.plugins_menu, "Classify cells").trigger()
    samples = ("Open Sample", "White blood cells")
    entry(viewer.window.file_menu, *samples, "Drawn smear field").trigger()
    entry(viewer.window.file_menu, *samples, "Drawn crops").trigger()

    def button(text):
        return next(b for b in main.findChildren(QPushButton) if b.text() == text)

    def click(text):
        qtbot.mouseClick(button(text), Qt.MouseButton.LeftButton)
        qtbot.waitUntil(button("Classify").isEnabled, timeout=120_000)

    stack = viewer.layers["Drawn crops"]
    click("Classify")
    points = viewer.layers["Drawn crops cells"]
    drawn = np.array(stack.metadata["drawn"])
    assert len(points.data) == len(stack.data) == 60
    assert (points.features["label"] == drawn).mean() > 0.8
    table = main.findChild(QTableWidget)
    counts = [int(table.item(row, 1).text()) for row in range(table.rowCount())]
    assert sum(counts) == 60

    viewer.layers.remove("Drawn smear field")
    click("Show canonical crops")
    canonical = viewer.layers["Drawn crops canonical"]
    assert canonical.data.shape[0] == 60
    viewer.dims.set_point(0, 2)
    qtbot.wait(500)
    picture = viewer.window.screenshot(canvas_only=False, flash=False)
    assert picture.shape[:2] == (HEIGHT, WIDTH)
    if folder := os.environ.get("WBC_SCREENSHOT_DIR"):
        imageio.imwrite(Path(folder) / "plugin.png", picture)
    # Frame and cells are on the canvas: its colours include that of the class that is shown.
    frame = np.rint(points.border_color[2, :3] * 255)
    assert (np.abs(picture[..., :3] - frame).max(axis=2) <= 8).sum() > 500
