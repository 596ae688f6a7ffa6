"""The dock widget "Classify cells": wires layers and runner to buttons, and nothing more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from magicgui.widgets import ComboBox, Container, FileEdit, PushButton
from napari.layers import Image, Layer, Points
from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QLabel,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from wbc_batch.errors import WbcError
from wbc_batch.schema import STATUS_ERROR
from wbc_napari.canonical import canonical_layer
from wbc_napari.differential_table import DifferentialTable
from wbc_napari.export import save_tables
from wbc_napari.layers import CropStack, LayerData, crop_stack, points_layer
from wbc_napari.runner import Step, classify_stack, devices, load_for, saying_why

if TYPE_CHECKING:
    import napari

__all__ = ["ClassifyWidget"]


@dataclass(eq=False)
class _Run:
    """What is under way: on which layer, in which worker, and what came of it so far."""

    layer: Image
    stack: CropStack
    worker: GeneratorWorker
    finish: Callable[["_Run"], None]
    steps: list[Any] = field(default_factory=list)
    trouble: str = ""


class ClassifyWidget(QWidget):
    """Classify the cells of an Image layer that holds a stack of crops.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer whose layers are offered and to which results are added.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._run: _Run | None = None
        self._build()
        self._layer.changed.connect(self._show_results)
        self._classify.changed.connect(self.classify)
        self._cancel.changed.connect(self.cancel)
        self._canonical.changed.connect(self.show_canonical)
        self._save.changed.connect(self._ask_and_save)
        for signal, callback in self._connections():
            signal.connect(callback)
        self._follow_selection()
        self._show_results()

    # --- what it looks like ---

    def _build(self) -> None:
        self._layer = ComboBox(
            label="Stack",
            choices=self._image_layers,
            nullable=False,
            tooltip="The Image layer with the crops, (N, Y, X, 3): one cell per step of the slider",
        )
        self._model = FileEdit(
            label="Model",
            mode="d",
            nullable=True,
            tooltip="Folder of a model bundle (with model.json); empty: the model that comes along",
        )
        self._model.choose_btn.text = "Choose…"
        self._model.choose_btn.tooltip = "Choose the folder of a model bundle"
        self._model.line_edit.native.setPlaceholderText("bundled")
        self._device = ComboBox(
            label="Device",
            choices=devices(),
            tooltip="Where the network runs; auto takes the GPU if there is one that torch can use",
        )
        form = QFormLayout()
        for field_ in (self._layer, self._model, self._device):
            field_.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            form.addRow(field_.label, field_.native)
        self._classify = PushButton(text="Classify", tooltip="Classify every crop of the stack")
        self._cancel = PushButton(
            text="Cancel", enabled=False, tooltip="Stop; what was classified so far is kept"
        )
        self._progress = QProgressBar()
        self._progress.setFormat("%v of %m cells")
        self._message = QLabel()
        self._message.setWordWrap(True)
        self._table = DifferentialTable()
        self._canonical = PushButton(
            text="Show canonical crops",
            tooltip="Add a layer beside the stack: each cell as the network sees it",
        )
        self._save = PushButton(
            text="Save CSV…", tooltip="Write cells.csv and differential.csv into a folder"
        )
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for part in (
            _row(self._classify, self._cancel),
            self._progress,
            self._message,
            self._table,
            _row(self._canonical, self._save),
        ):
            layout.addWidget(part)
        layout.addStretch(1)

    def _image_layers(self, _: Any = None) -> list[Image]:
        """Image layers to choose from: the user's, not those that this widget added."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        return [layer for layer in layers if "wbc_napari" not in layer.metadata]

    def _say(self, text: str) -> None:
        self._message.setText(text)
        self._message.setVisible(bool(text))

    def _complain(self, sentence: str) -> None:
        """Show a notification; the dock repeats it, for a notification cuts and passes."""
        show_error(sentence)
        self._say(sentence)

    def reset_choices(self, _: Any = None) -> None:
        """Offer the Image layers that there are now (napari calls this on every change)."""
        self._layer.reset_choices()

    def _follow_selection(self, _: Any = None) -> None:
        """Choose the image that is selected in the layer list."""
        layer = self._viewer.layers.selection.active
        if self._run is None and layer in self._layer.choices:
            self._layer.value = layer

    def _connections(self) -> list[tuple[Any, Callable[..., None]]]:
        """Signals of the viewer and what they call."""
        events = self._viewer.layers.events
        changes = (events.inserted, events.removed, events.reordered, events.renamed)
        return [
            *((signal, self.reset_choices) for signal in changes),
            (events.removed, self._on_layer_removed),
            (self._viewer.layers.selection.events.active, self._follow_selection),
        ]

    # --- classifying ---

    def classify(self) -> None:
        """Classify the chosen layer in a thread; the results come as a Points layer."""
        stack = self._stack()
        if stack is not None:
            steps = classify_stack(stack, *self._chosen_model())
            self._start(stack, steps, 1 + len(stack.spans()), self._add_points)
            self._progress.setValue(0)

    def show_canonical(self) -> None:
        """Add an Image layer of the crops as the network sees them."""
        stack = self._stack()
        if stack is not None:
            steps = load_for(stack, *self._chosen_model())
            self._start(stack, steps, 1, self._add_canonical)

    def cancel(self) -> None:
        """Ask the run to stop after the batch that it is in."""
        if self._run is not None:
            self._run.worker.quit()
            self._cancel.enabled = False
            self._say("Stopping…")

    def _stack(self) -> CropStack | None:
        """Return the chosen layer as crops; None, and a notification, where it is none."""
        try:
            return crop_stack(self._layer.value)
        except WbcError as error:
            self._complain(str(error))
            return None

    def _chosen_model(self) -> tuple[str, str]:
        folder = self._model.value
        return ("default" if folder is None else str(folder.expanduser())), self._device.value

    def _start(
        self,
        stack: CropStack,
        steps: Iterator[Any],
        total: int,
        finish: Callable[["_Run"], None],
    ) -> None:
        progress = {"total": total, "desc": stack.name}
        worker = create_worker(saying_why, steps, _progress=progress, _ignore_errors=True)
        self._run = _Run(self._layer.value, stack, worker, finish)
        worker.yielded.connect(self._on_step)
        worker.returned.connect(self._on_returned)
        worker.finished.connect(self._on_finished)
        self._say("Loading the model…")
        self._set_busy(True)
        worker.start()

    def _on_step(self, step: Any) -> None:
        if self._run is not None:
            self._run.steps.append(step)
            if isinstance(step, Step):
                self._show_progress(step)

    def _show_progress(self, step: Step) -> None:
        if step.cells is None:
            self._say("Classifying…")
        else:
            self._progress.setValue(self._progress.value() + len(step.cells))

    def _on_returned(self, trouble: str) -> None:
        if self._run is not None:
            self._run.trouble = trouble

    def _on_finished(self) -> None:
        run, self._run = self._run, None
        if run is None:  # the widget was closed meanwhile
            return
        self._set_busy(False)
        if run.layer not in self._viewer.layers:
            show_warning(f"'{run.stack.name}' was removed during the run; nothing was added.")
        else:
            run.finish(run)
        self._show_results()
        if run.trouble:
            self._complain(run.trouble)

    def _set_busy(self, busy: bool) -> None:
        for part in (self._layer, self._model, self._device, self._classify, self._canonical):
            part.enabled = not busy
        self._cancel.enabled = busy
        self._save.enabled = not busy and self._points() is not None

    def _on_layer_removed(self, event: Any) -> None:
        if self._run is not None and event.value is self._run.layer:
            self._run.worker.quit()
        self._show_results()

    # --- results ---

    def _add_points(self, run: "_Run") -> None:
        tables = [step.cells for step in run.steps if step.cells is not None]
        if not tables:
            return
        cells = pd.concat(tables, ignore_index=True)
        data = points_layer(run.layer, run.stack, cells, run.steps[0].model)
        self._replace(self._companion(run.layer, Points), data)
        failed = cells[cells["status"] == STATUS_ERROR]
        if len(failed):
            first = failed.iloc[0]
            show_warning(
                f"{len(failed)} of {len(cells)} crops could not be classified; "
                f"the first is crop {first['index']}: {first['error']}."
            )

    def _add_canonical(self, run: "_Run") -> None:
        for classifier in run.steps:
            data = canonical_layer(run.layer, run.stack, classifier)
            self._replace(self._companion(run.layer, Image), data)
            self._viewer.reset_view()

    def _replace(self, old: Layer | None, data: LayerData) -> None:
        """Add a layer; one from an earlier run on the same stack makes room."""
        if old is not None:
            self._viewer.layers.remove(old)
        self._viewer.add_layer(Layer.create(*data))

    def _cells_in_stack(self) -> int:
        try:
            return len(crop_stack(self._layer.value))
        except WbcError:  # told when it is to be classified
            return 0

    def _companion(self, stack: Image, kind: type[Layer]) -> Any:
        """Return the layer of this kind that an earlier run added to a stack."""
        for layer in self._viewer.layers:
            origin = layer.metadata.get("wbc_napari", {}).get("image")
            if isinstance(layer, kind) and origin == stack.unique_id:
                return layer
        return None

    def _points(self) -> Points | None:
        """Return the results of the chosen stack."""
        stack = self._layer.value
        return None if stack is None else self._companion(stack, Points)

    def _show_results(self, _: Any = None) -> None:
        """Show what is known of the chosen stack: how many cells, which model, the differential."""
        if self._run is not None:
            return
        points = self._points()
        self._save.enabled = points is not None
        total = self._cells_in_stack()
        self._progress.setTextVisible(total > 0)
        self._progress.setRange(0, max(total, 1))
        self._progress.setValue(0 if points is None else len(points.data))
        if points is None or not len(points.data):
            self._say("")
            self._table.show_differential(None)
            return
        from wbc_batch.report import differential

        model = points.metadata["wbc_napari"]["model"]
        self._say(f"By model {model['name']} ({model['sha256'][:8]}) on {model['device']}")
        self._table.show_differential(differential(points.features))

    def _ask_and_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for cells.csv and differential.csv")
        if folder:
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write ``cells.csv`` and ``differential.csv`` of the chosen layer into a folder."""
        points = self._points()
        if points is None:
            self._complain("Nothing has been classified yet.")
            return
        try:
            save_tables(points.features, folder)
        except WbcError as error:
            self._complain(str(error))
        else:
            show_info(f"cells.csv and differential.csv were written to {folder}.")

    # --- closing ---

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802  Qt's name
        """Let go of the viewer when the dock is closed: napari takes the widget out of it."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._run is not None:
            self._run.worker.quit()
            self._run = None
        for signal, callback in self._connections():
            signal.disconnect(callback)


def _row(*buttons: PushButton) -> QWidget:
    row = Container(widgets=buttons, layout="horizontal", labels=False)
    row.margins = (0, 0, 0, 0)
    return row.native
