"""Adapt a model to a laboratory: fine-tune it with reviewed cells, compare it on others that were held out.

The training itself is ``wbc-batch train --init`` in a process of its own: a window does not train.
"""

import atexit
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.classifier.images import as_rgb
from wbc_batch.errors import ImageError, InputError, ModelError, RunError, reason
from wbc_batch.paths import exists
from wbc_batch.schema import CLASSES, STATUS_OK
from wbc_napari.crops import Crops, read_one
from wbc_napari.held_out import held_out
from wbc_napari.tables import reviewed_labels
from wbc_napari.torchvision_loader import load_torchvision

if TYPE_CHECKING:
    from wbc_batch.report.agreement import Agreement

__all__ = [
    "Adaptation",
    "Comparison",
    "Progress",
    "adapt",
    "adaptation",
    "hold_out",
    "train_command",
]

#: With fewer reviewed cells there is nothing to learn from, nor to compare on.
LEAST_CELLS = 20

_EPOCH = re.compile(r"epoch (\d+)/(\d+)")


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What is to be adapted, and from which cells.

    Attributes
    ----------
    folder : Path
        For crops, training and bundle; new, or that of the same adaptation, which goes on then.
    crops : Crops
    rows : ndarray of int, shape (N,)
        The cells to learn from and to compare on.
    labels : ndarray of str, shape (N,)
        The reviewer's labels of them.
    names : ndarray of str, shape (N,)
        Their ids, which become names of files.
    held_out : ndarray of bool, shape (N,)
        The cells to compare on; empty until `hold_out` has chosen them.
    model : str
        The model to start from.
    left_out : int
        Reviewed cells that are not classified: their crops can be of no use.
    device : str
        Where to compute.
    options : tuple of str
        More words for ``wbc-batch train``.
    """

    folder: Path
    crops: Crops
    rows: NDArray[np.intp]
    labels: NDArray[np.object_]
    names: NDArray[np.object_]
    held_out: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    model: str = "default"
    left_out: int = 0
    device: str = "auto"
    options: tuple[str, ...] = ()

    @property
    def bundle(self) -> Path:
        """Where the adapted model will be."""
        return self.folder / "training" / "bundle"


@dataclass(frozen=True)
class Progress:
    """A line to show; how far the training is, 0..1, where that is known."""

    line: str
    done: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Both models on the held-out cells, against the reviewer.

    Attributes
    ----------
    before, after : Agreement
        Reviewer and model; an unidentified cell agrees with none.
    bundle : Path
        The adapted model.
    notes : tuple of str
        Sentences on which cells these are.
    """

    before: "Agreement"
    after: "Agreement"
    bundle: Path
    notes: tuple[str, ...] = ()


def adaptation(
    cells: pd.DataFrame,
    crops: Crops,
    folder: Path,
    model: str = "default",
) -> Adaptation:
    """Choose the reviewed cells of the five classes. No pixel is read yet.

    Parameters
    ----------
    cells : DataFrame
        ``cell_id`` and ``reviewed_label``; with ``status`` those that are not classified are left out.
    crops : Crops
        In the order of `cells`.
    folder, model
        See `Adaptation`.

    Raises
    ------
    InputError
        If too few cells were reviewed, or cells of one class only.
    """
    labels = reviewed_labels(cells)
    reviewed = np.isin(labels.astype(str), CLASSES)
    rows = np.flatnonzero(reviewed & (cells.get("status", STATUS_OK) == STATUS_OK))
    left_out = int(reviewed.sum()) - len(rows)
    if len(rows) < LEAST_CELLS:
        besides = f", not counting {left_out} that are not classified" if left_out else ""
        raise InputError(
            f"Only {len(rows)} cells of the five classes were reviewed{besides}; at least "
            f"{LEAST_CELLS} are needed to adapt a model, and a few hundred are better."
        )
    said = labels[rows]
    if len(set(said)) == 1:
        raise InputError(
            f"Only {said[0]}s were reviewed; the adapted model would forget the other classes; review some "
            "of each."
        )
    names = cells["cell_id"].to_numpy(object)[rows]
    return Adaptation(folder, crops, rows, said, names, model=model, left_out=left_out)


def hold_out(plan: Adaptation, stop: threading.Event | None = None) -> Adaptation:
    """Hold a quarter of each class out, see `wbc_napari.held_out`.

    Parameters
    ----------
    plan : Adaptation
    stop : Event, optional
        Set it to end early; what is chosen then is of no use.

    Raises
    ------
    InputError
        If none can be held out, as all are copies.
    """
    stop = stop or threading.Event()
    held = held_out(plan.crops, plan.rows, plan.labels, plan.names, stop)
    if not held.any() and not stop.is_set():
        raise InputError(
            "The reviewed cells are copies of so few images that none can be held out for the comparison; "
            "review cells of other images, too."
        )
    return replace(plan, held_out=held)


def train_command(plan: Adaptation) -> list[str]:
    """Return the words of the ``wbc-batch`` line that trains."""
    words = [
        "wbc-batch",
        "train",
        f"own={plan.folder / 'cells'}",
        "-o",
        str(plan.folder / "training"),
    ]
    words += [
        "--init",
        plan.model,
        "--name",
        plan.folder.name or "adapted",
        "--device",
        plan.device,
    ]
    return [*words, *plan.options]


def adapt(plan: Adaptation, stop: threading.Event) -> Iterator[Progress | Comparison]:
    """Write the crops, train, compare.

    Parameters
    ----------
    plan : Adaptation
    stop : Event
        Set it to end early; what was trained is kept, and the same plan goes on from there.

    Yields
    ------
    Progress
        While it goes on, several times per second.
    Comparison
        At the end, unless it was stopped.

    Raises
    ------
    InputError
        If no cells can be held out.
    RunError
        If the crops cannot be written, or the training fails; its last line says why.
    ModelError
        If one of the models cannot be loaded.
    """
    if not len(plan.held_out):
        yield Progress("Reading the crops…")
        plan = hold_out(plan, stop)
        if stop.is_set():
            return
    yield Progress("Writing the crops…")
    try:
        _write_crops(plan, stop)
    except OSError as error:
        raise RunError(
            f"{plan.folder}: crops cannot be written there ({reason(error)})."
        ) from error
    if not stop.is_set():
        yield from _train(train_command(plan), stop)
    if not stop.is_set():
        yield Progress("Comparing both models on the held-out cells…", 1.0)
        comparison = _compare(plan, stop)
        if comparison is not None:
            yield comparison


def _write_crops(plan: Adaptation, stop: threading.Event) -> None:
    training = ~plan.held_out
    names = [f"{name}.png" for name in plan.names[training]]
    chosen = list(zip(plan.rows[training], plan.labels[training], names, strict=True))
    _refuse_other_cells(plan, {(label, name): row for row, label, name in chosen})
    for row, label, name in chosen:
        if stop.is_set():
            return
        image = _picture(plan, row)
        if image is None:
            continue
        folder = plan.folder / "cells" / label
        folder.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", image[..., ::-1])
        (folder / name).write_bytes(png.tobytes())


def _picture(plan: Adaptation, row: int) -> NDArray[np.uint8] | None:
    """Return a crop as it is learned from; None if it cannot be read."""
    try:
        return as_rgb(read_one(plan.crops, int(row)))
    except ImageError:
        return None


def _refuse_other_cells(plan: Adaptation, wanted: dict[tuple[str, str], int]) -> None:
    """Refuse to mix the crops of two adaptations, before any is written.

    A cell would have the old label and the new one; and a training that has begun does not go on with more.
    """
    there = {(path.parent.name, path.name) for path in (plan.folder / "cells").glob("*/*.png")}
    begun = exists(plan.folder / "training" / "training.json")
    new = [row for key, row in wanted.items() if begun and key not in there]
    if there - wanted.keys() or any(_picture(plan, row) is not None for row in new):
        raise RunError(
            f"{plan.folder} holds an adaptation from other corrections; choose a new folder for this one."
        )


def _train(words: Sequence[str], stop: threading.Event) -> Iterator[Progress]:
    run = [sys.executable, "-P", "-c", "from wbc_batch.cli import main; main()", *words[1:]]
    with subprocess.Popen(
        run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        # Where the program ends, this thread does not come to its own end.
        atexit.register(process.terminate)
        last, done = "Starting the training…", 0.0
        try:
            while True:
                try:
                    line = lines.get(timeout=0.3)
                except queue.Empty:
                    line = ""
                if line is None:
                    break
                if stop.is_set():
                    process.terminate()
                if line:
                    last = line
                    found = _EPOCH.search(line)
                    done = int(found[1]) / int(found[2]) if found else done
                yield Progress(last, done)
        finally:
            atexit.unregister(process.terminate)
            if process.poll() is None:
                process.terminate()
        if process.wait() != 0 and not stop.is_set():
            raise RunError(f"The training ended early: {last}")


def _read_lines(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    for line in process.stderr or ():
        if line.strip():
            lines.put(line.strip())
    lines.put(None)


def _compare(plan: Adaptation, stop: threading.Event) -> Comparison | None:
    load_torchvision()
    from wbc_batch.classifier import Classifier
    from wbc_batch.report.agreement import agreement

    images, labels = [], []
    rows, said = plan.rows[plan.held_out], plan.labels[plan.held_out]
    for image, label in zip(plan.crops.read(rows), said, strict=True):
        if not isinstance(image, ImageError):
            images.append(image)
            labels.append(label)
    if not images:
        raise RunError(
            f"None of the held-out cells can be read, so there is no comparison; the model is {plan.bundle}."
        )
    found = []
    for model in (plan.model, str(plan.bundle)):
        try:
            predictions = Classifier.load(model, device=plan.device).predict(images)
        except ImageError as error:
            raise ModelError(f"{model} cannot be compared: {error}") from error
        found.append(agreement(labels, predictions.label))
        if stop.is_set():
            return None
    return Comparison(found[0], found[1], plan.bundle, _notes(plan, labels))


def _notes(plan: Adaptation, labels: Sequence[str]) -> tuple[str, ...]:
    """Say which cells were not compared on."""
    notes = []
    absent = [label for label in CLASSES if label not in labels]
    if absent:
        notes.append(
            f"There is no {' and no '.join(absent)} among the held-out cells, so nothing is known "
            "about those."
        )
    if plan.left_out:
        notes.append(
            f"{plan.left_out} reviewed cells are left out because they are not classified."
        )
    return tuple(notes)
