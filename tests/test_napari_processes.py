"""In processes of their own: what would end a whole napari, and a test run with it."""

import subprocess
import sys
from pathlib import Path

import pytest
from qtpy.QtWidgets import QApplication

from wbc_batch.classifier import Bundle, Rejection
from wbc_batch.classifier.bundle import write_bundle
from wbc_batch.classifier.network import all_arguments, build_network
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.schema import CLASSES

#: A user whose napari has drawn something, and who then classifies with the model of a folder.
_SCRIPT = """
import sys
import napari
import numpy as np
from qtpy.QtWidgets import QApplication, QPushButton
from wbc_batch.synthetic import draw_cells
from wbc_napari.station import StationWidget

viewer = napari.Viewer()
crops, _ = draw_cells(3, seed=5, size=96)
viewer.add_image(crops, name="slide")
viewer.window.screenshot(canvas_only=False, flash=False)
dock = StationWidget(viewer)
viewer.window.add_dock_widget(dock)
dock.classify.form.model.line_edit.native.setText(sys.argv[1])
button = next(b for b in dock.findChildren(QPushButton) if b.text() == "Classify")
button.click()
while not button.isEnabled():
    QApplication.processEvents()
print(viewer.layers["slide cells"].features["status"].tolist(), flush=True)
"""


@pytest.fixture
def torchvision_bundle(tmp_path: Path) -> Path:
    arguments = all_arguments("torchvision", {"name": "mobilenet_v3_small"})
    described = Bundle(
        name="test",
        architecture="torchvision",
        arguments=arguments,
        classes=CLASSES,
        preprocessing=Preprocessing(size=96),
        temperature=1.0,
        novelty_scale=None,
        rejection=Rejection(),
    )
    weights = build_network("torchvision", len(CLASSES), arguments).state_dict()
    return write_bundle(tmp_path / "bundle", described, weights, None, "# test\n").path


def test_a_model_of_torchvision_is_used_in_a_napari_that_has_drawn(torchvision_bundle, qapp):
    if QApplication.platformName() == "offscreen":
        pytest.skip("a real window needs an X server (pytest-xvfb starts one) or a desktop")
    words = [sys.executable, "-c", _SCRIPT, str(torchvision_bundle)]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert "['ok', 'ok', 'ok']" in ended.stdout, ended.stderr[-2000:]
