"""Adapting a model to reviewed cells: the training is a process, the comparison is on cells held out."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication, QLabel, QPushButton

from wbc_batch.classifier import read_bundle
from wbc_batch.errors import InputError, RunError
from wbc_batch.report.agreement import agreement
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cells
from wbc_napari.adapt import Comparison, Progress, adapt, adaptation, hold_out, train_command
from wbc_napari.adapt_widget import AdaptWidget
from wbc_napari.crops import CropStack

SHORT = {"device": "cpu", "options": ("--epochs", "1", "--cells-per-epoch", "32")}


@pytest.fixture(scope="module")
def reviewed():
    """Thirty drawn cells that a reader has labelled, and one that is unidentified."""
    crops, labels = draw_cells(31, seed=2, size=64)
    said = [*labels[:30], "unidentified"]
    cells = pd.DataFrame({"cell_id": [f"{n:016x}" for n in range(31)], "reviewed_label": said})
    return SimpleNamespace(cells=cells, crops=CropStack("slide", "slide", crops, 3))


def test_a_quarter_of_each_class_is_held_out_whatever_the_order(reviewed, tmp_path):
    plan = hold_out(adaptation(reviewed.cells, reviewed.crops, tmp_path))
    assert len(plan.rows) == 30
    for label in CLASSES:
        held = plan.held_out[plan.labels == label]
        assert held.sum() == len(held) // 4
    turned = reviewed.cells.iloc[::-1].reset_index(drop=True)
    again = hold_out(adaptation(turned, reviewed.crops, tmp_path))
    assert set(plan.names[plan.held_out]) == set(again.names[again.held_out])


def test_copies_of_a_picture_are_learned_from_or_held_out_and_never_both(reviewed, tmp_path):
    pictures = reviewed.crops.data[:20]
    stack = CropStack("slide", "slide", np.concatenate([pictures] * 3), 3)
    ids = [f"{n:016x}" for n in np.random.default_rng(0).permutation(60)]
    said = [*reviewed.cells["reviewed_label"][:20]] * 3
    cells = pd.DataFrame({"cell_id": ids, "reviewed_label": said})
    plan = hold_out(adaptation(cells, stack, tmp_path))
    sides = plan.held_out.reshape(3, 20)
    assert (sides == sides[0]).all()
    assert 10 <= plan.held_out.sum() <= 15
    alike = CropStack("slide", "slide", np.repeat(pictures[:1], 60, axis=0), 3)
    with pytest.raises(InputError, match="review cells of other images"):
        hold_out(adaptation(cells, alike, tmp_path))


def test_too_few_cells_are_refused_with_their_number(reviewed, tmp_path):
    few = reviewed.cells.assign(reviewed_label=[*["monocyte"] * 7, *[""] * 24])
    with pytest.raises(InputError, match="Only 7 cells"):
        adaptation(few, reviewed.crops, tmp_path)
    with pytest.raises(InputError, match="Only 0 cells"):
        adaptation(reviewed.cells[["cell_id"]], reviewed.crops, tmp_path)


def test_cells_that_are_not_classified_are_left_out_and_counted(reviewed, tmp_path):
    status = ["error"] * 2 + ["ok"] * 29
    plan = adaptation(reviewed.cells.assign(status=status), reviewed.crops, tmp_path)
    assert (plan.rows[0], len(plan.rows), plan.left_out) == (2, 28, 2)
    with pytest.raises(InputError, match="not counting 30 that are not classified"):
        adaptation(reviewed.cells.assign(status="error"), reviewed.crops, tmp_path)


def test_a_model_is_not_adapted_to_one_class(reviewed, tmp_path):
    alike = reviewed.cells.assign(reviewed_label="monocyte")
    with pytest.raises(InputError, match="Only monocytes were reviewed"):
        adaptation(alike, reviewed.crops, tmp_path)


def test_a_model_is_trained_on_and_compared_on_the_cells_it_did_not_see(reviewed, tmp_path):
    plan = hold_out(adaptation(reviewed.cells, reviewed.crops, tmp_path / "ours"))
    plan = replace(plan, **SHORT)
    steps = list(adapt(plan, Event()))
    last = steps[-1]
    assert isinstance(last, Comparison)
    assert last.before.cells == last.after.cells == plan.held_out.sum()
    assert any("epoch 1/1" in step.line for step in steps[:-1])
    assert [step.done for step in steps[:-1] if step.done is not None][-1] == 1.0
    bundle = read_bundle(last.bundle)
    assert bundle.name == "ours"
    assert bundle.sha256 != read_bundle("default").sha256
    written = {path.stem for path in (tmp_path / "ours" / "cells").rglob("*.png")}
    assert written == set(plan.names[~plan.held_out])


def test_other_corrections_are_not_mixed_with_those_of_an_adaptation(reviewed, tmp_path):
    plan = replace(hold_out(adaptation(reviewed.cells, reviewed.crops, tmp_path)), **SHORT)
    list(adapt(plan, Event()))
    changed = plan.labels.copy()
    first = np.flatnonzero(~plan.held_out)[0]
    changed[first] = next(name for name in CLASSES if name != changed[first])
    before = sorted(tmp_path.rglob("*.png"))
    more = plan.held_out.copy()
    more[np.flatnonzero(more)[0]] = False
    for other in ({"labels": changed}, {"held_out": more}):
        with pytest.raises(RunError, match="other corrections; choose a new folder"):
            list(adapt(replace(plan, **other), Event()))
        assert sorted(tmp_path.rglob("*.png")) == before
    # The first goes on; it says what it is not compared on, and stops when it is asked to.
    some = ~plan.held_out | (plan.labels != "basophil")
    parts = {name: getattr(plan, name)[some] for name in ("rows", "labels", "names", "held_out")}
    *_, last = adapt(replace(plan, **parts, left_out=2), Event())
    assert "no basophil among the held-out cells" in last.notes[0]
    assert last.notes[1].startswith("2 reviewed cells")
    stop, steps = Event(), []
    for step in adapt(plan, stop):
        steps.append(step)
        if step.line.startswith("Comparing"):
            stop.set()
    assert isinstance(steps[-1], Progress)


def test_a_training_that_fails_says_why_in_a_sentence(reviewed, tmp_path):
    plan = adaptation(reviewed.cells, reviewed.crops, tmp_path / "x", str(tmp_path / "none"))
    with pytest.raises(RunError, match=r"ended early: .*none"):
        list(adapt(plan, Event()))


def test_a_training_that_is_stopped_ends_its_process_and_compares_nothing(reviewed, tmp_path):
    plan = adaptation(reviewed.cells, reviewed.crops, tmp_path / "y")
    stop, steps = Event(), []
    for step in adapt(plan, stop):
        steps.append(step)
        stop.set()
    assert all(isinstance(step, Progress) for step in steps)
    assert not plan.bundle.exists()


@pytest.mark.skipif(os.name != "posix", reason="the training is played by a shell script")
def test_a_training_ends_with_the_program_that_began_it(tmp_path):
    training = tmp_path / "training.sh"
    training.write_text(
        f"#!/bin/sh\ntrap 'kill $!; touch {tmp_path}/ended; exit' TERM\n"
        f"sleep 60 & touch {tmp_path}/begun\nwait\n"
    )
    training.chmod(0o755)
    program = f"""
import sys, threading, time
from pathlib import Path
import numpy as np, pandas as pd
from wbc_napari.adapt import adapt, adaptation
from wbc_napari.crops import CropStack
sys.executable = "{training}"
cells = pd.DataFrame({{
    "cell_id": [f"{{n:016x}}" for n in range(24)], "reviewed_label": ["monocyte", "basophil"] * 12
}})
crops = CropStack("s", "s", np.random.default_rng(0).integers(0, 255, (24, 40, 40, 3), np.uint8), 3)
plan = adaptation(cells, crops, Path("{tmp_path}/ours"))
threading.Thread(target=lambda: list(adapt(plan, threading.Event())), daemon=True).start()
while not Path("{tmp_path}/begun").exists():
    time.sleep(0.1)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    until = time.monotonic() + 10
    while not (tmp_path / "ended").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert (tmp_path / "ended").exists()


def test_the_command_is_the_one_that_is_run(reviewed, tmp_path):
    words = train_command(adaptation(reviewed.cells, reviewed.crops, tmp_path / "ours"))
    assert words[:3] == ["wbc-batch", "train", f"own={tmp_path / 'ours' / 'cells'}"]
    assert words[words.index("--init") + 1] == "default"


def test_without_reviewed_cells_the_dock_says_so_and_nothing_begins(make_napari_viewer):
    viewer = make_napari_viewer()
    widget = AdaptWidget(viewer)
    viewer.window.add_dock_widget(widget)
    notification_manager.records.clear()
    buttons = {button.text(): button for button in widget.findChildren(QPushButton)}
    buttons["Adapt"].click()
    assert [str(r.message) for r in notification_manager.records] == [
        "There are no classified cells; classify and review some first."
    ]
    assert not buttons["Cancel"].isEnabled()


@pytest.fixture
def dock(make_napari_viewer, tmp_path):
    """The dock, with cells and a folder chosen."""
    viewer = make_napari_viewer()
    crops, labels = draw_cells(24, seed=2, size=64)
    image = viewer.add_image(crops, name="slide", rgb=True)
    features = pd.DataFrame(
        {"cell_id": [f"{n:016x}" for n in range(24)], "reviewed_label": np.array(labels, object)}
    )
    mark = {"image": image.unique_id, "model": {"name": "m", "sha256": ""}}
    viewer.add_points(np.zeros((24, 3)), features=features, metadata={"wbc_napari": mark})
    widget = AdaptWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    widget._folder.value = tmp_path / "ours"
    return widget


@pytest.mark.parametrize("compared", [True, False])
def test_a_training_that_is_cancelled_too_late_is_not_called_stopped(
    dock, compared, monkeypatch, qtbot, tmp_path
):
    go = Event()
    both = agreement(["monocyte"], ["monocyte"])

    def steps(_plan, _stop):
        yield Progress("Comparing…", 1.0)
        go.wait(60)
        if compared:
            yield Comparison(both, both, tmp_path, ("A note.",))

    monkeypatch.setattr("wbc_napari.adapt_widget.adapt", steps)
    dock.begin()
    dock.cancel()
    go.set()
    begin = next(b for b in dock.findChildren(QPushButton) if b.text() == "Adapt")
    qtbot.waitUntil(begin.isEnabled, timeout=60_000)
    said = "\n".join(label.text() for label in dock.findChildren(QLabel))
    assert ("A note." in said, "Stopped." in said) == (compared, not compared)


def test_the_dock_copies_the_command_of_the_chosen_cells(dock, tmp_path):
    widget = dock
    copy = next(b for b in widget.findChildren(QPushButton) if b.text() == "Copy as command")
    copy.click()
    line = QApplication.clipboard().text()
    assert line.startswith("wbc-batch train own=")
    assert str(tmp_path / "ours") in line
    widget._model.line_edit.native.setText("~nosuchuser/model")
    copy.click()
    assert "--init '~nosuchuser/model'" in QApplication.clipboard().text()
    widget._folder.line_edit.native.setText("~nosuchuser/ours")
    notification_manager.records.clear()
    copy.click()
    (told,) = (str(record.message) for record in notification_manager.records)
    assert told.startswith(str(Path("~nosuchuser/ours")))
    assert "begins with an unknown user name" in told
