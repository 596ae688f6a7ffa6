"""The page "Classify": wires layers and runner to buttons, and nothing more."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from magicgui.widgets import Container, PushButton
from napari.layers import Layer
from napari.qt.threading import create_worker
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QProgressBar, QVBoxLayout, QWidget

from wbc_batch.errors import InputError, WbcError
from wbc_napari.blinding import whole_table
from wbc_napari.classify_form import ClassifyForm
from wbc_napari.commands import classify_command, shortened
from wbc_napari.companions import classified_by, extent, results_of
from wbc_napari.crops import Crops
from wbc_napari.layers import crops_of, whole_fields
from wbc_napari.marks import has_results, mark_of
from wbc_napari.notices import show_error, show_warning
from wbc_napari.outcome import Run, guess_of_colours, put_boxes, put_canonical, put_results
from wbc_napari.runner import Found, Plan, Step, classify, find_cells, load_for, saying_why
from wbc_napari.sentence_label import sentence_label
from wbc_napari.tables import PENDING, cell_table, resumed, with_results

if TYPE_CHECKING:
    import napari

__all__ = ["ClassifyWidget"]


class ClassifyWidget(QWidget):
    """Find and classify the cells of an image.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer whose layers are offered and to which results are added.
    """

    #: A layer has new results: the layer.
    classified = Signal(object)

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._run: Run | None = None
        self._build()
        self._classify.changed.connect(self.classify)
        self._cancel.changed.connect(self.cancel)
        self._find.changed.connect(self.find)
        self._canonical.changed.connect(self.show_canonical)
        self._command.changed.connect(self.copy_command)
        for signal, callback in self._connections():
            signal.connect(callback)
        self._follow_selection()
        self._show_results()

    # --- what it looks like ---

    def _build(self) -> None:
        self.form = ClassifyForm(self._viewer, self._show_results)
        self._find = PushButton(
            text="Find cells",
            tooltip="Propose a box around each leukocyte of the field of view, or of all fields of a "
            "stack, as a Shapes layer",
        )
        self._classify = PushButton(
            text="Classify",
            tooltip="Classify the cells; results from the same settings are kept",
        )
        self._cancel = PushButton(
            text="Cancel", enabled=False, tooltip="Stop; the cells classified so far are kept"
        )
        self._progress = QProgressBar()
        self._message = sentence_label()
        self._canonical = PushButton(
            text="Show canonical crops",
            tooltip="Add a layer that shows each cell as the network sees it",
        )
        self._command = PushButton(
            text="Copy as command",
            tooltip="Copy the wbc-batch command that classifies the same crops in bulk",
        )
        layout = QVBoxLayout(self)
        layout.addWidget(self.form)
        for part in (
            _row(self._find, self._classify, self._cancel),
            self._progress,
            self._message,
            _row(self._canonical, self._command),
        ):
            layout.addWidget(part)
        layout.addStretch(1)

    def _say(self, text: str) -> None:
        self._message.setText(text)
        self._message.setVisible(bool(text))

    def _complain(self, sentence: str) -> None:
        """Show a notification; the dock repeats it, for a notification cuts and passes."""
        show_error(sentence)
        self._say(sentence)

    def reset_choices(self, _: Any = None) -> None:
        """Offer the layers that there are now (napari calls this on every change)."""
        self.form.reset_choices()

    def _follow_selection(self, _: Any = None) -> None:
        """Choose the image that is selected in the layer list."""
        layer = self._viewer.layers.selection.active
        if self._run is None and layer in self.form.image.choices:
            self.form.image.value = layer

    def _connections(self) -> list[tuple[Any, Callable[..., None]]]:
        """Signals of the viewer and what they call."""
        events = self._viewer.layers.events
        changes = (events.inserted, events.removed, events.reordered, events.renamed)
        return [
            *((signal, self.reset_choices) for signal in changes),
            (events.inserted, self._on_layer_inserted),
            (events.removed, self._on_layer_removed),
            (self._viewer.layers.selection.events.active, self._follow_selection),
        ]

    # --- what the buttons do ---

    def classify(self) -> None:
        """Classify the chosen cells in a thread; the results come as features of a layer."""
        form = self.form
        try:
            crops = crops_of(form.image.value, form.marks.value, form.crop_size)
            same = classified_by(self._results(), form.model_name, form.rejection)
            table = self._known(crops, same)
            wanted = np.flatnonzero((table["status"] == PENDING).to_numpy())
            if not len(wanted):  # all is done: then the user means to do it again
                table = self._known(crops, False)
                wanted = np.arange(len(crops))
        except WbcError as error:
            self._complain(str(error))
            return
        plan = Plan(crops, wanted, form.model_name, form.device.value, form.rejection)
        total = 1 + len(crops.batches(wanted))
        run = self._start(crops.name, classify(plan), total, self._finish_cells)
        run.crops, run.table, run.wanted = crops, table, wanted
        self._progress.setRange(0, len(crops))
        self._progress.setValue(len(crops) - len(wanted))

    def _known(self, crops: Crops, results: bool) -> pd.DataFrame:
        """List the cells, with what reviewers said of them and, if wanted, what was classified."""
        layer, table = self._results(), cell_table(crops)
        return table if layer is None else resumed(table, whole_table(layer), results)

    def find(self) -> None:
        """Find the cells of all fields of view of the image; boxes come as a Shapes layer."""
        try:
            fields = whole_fields(self.form.image.value)
        except WbcError as error:
            self._complain(str(error))
            return
        run = self._start(fields.name, find_cells(fields), len(fields), self._finish_finding)
        run.crops = fields
        self._say("Finding cells…")
        self._progress.setTextVisible(True)
        self._progress.setFormat("%v of %m fields")
        self._progress.setRange(0, len(fields))
        self._progress.setValue(0)

    def show_canonical(self) -> None:
        """Add an Image layer of the crops as the network sees them."""
        form = self.form
        try:
            crops = crops_of(form.image.value, None, form.crop_size)
        except WbcError as error:
            self._complain(str(error))
            return
        plan = Plan(crops, np.arange(len(crops)), form.model_name, form.device.value)
        run = self._start(crops.name, load_for(plan), 1, self._finish_canonical)
        run.crops = crops

    def copy_command(self) -> None:
        """Copy the ``wbc-batch`` line for the chosen stack."""
        form = self.form
        try:
            if form.marks.value is not None:
                raise InputError(
                    "wbc-batch classifies crops, not fields of view; export the cells on the Report page, "
                    "and give wbc-batch the folder crops that is written."
                )
            crops = crops_of(form.image.value, None, form.crop_size)
            line = classify_command(crops.sources, form.model_name, form.device.value)
        except WbcError as error:
            self._complain(str(error))
            return
        QApplication.clipboard().setText(line)
        self._say(f"Copied: {shortened(line)}")

    def cancel(self) -> None:
        """Ask the run to stop after the batch that it is in."""
        if self._run is not None:
            self._run.stop()
            self._cancel.enabled = False
            self._say("Stopping…")

    # --- a run ---

    def _start(
        self, name: str, steps: Iterator[Any], total: int, finish: Callable[[Run], None]
    ) -> Run:
        progress = {"total": total, "desc": name}
        worker = create_worker(saying_why, steps, _progress=progress, _ignore_errors=True)
        form = self.form
        image, marks = form.image.value, form.marks.value
        run = self._run = Run(image, marks, name, form.crop_size, finish, worker.quit)
        worker.yielded.connect(self._on_step)
        worker.returned.connect(self._on_returned)
        worker.finished.connect(self._on_finished)
        self._say("Loading the model…")
        self._set_busy(True)
        worker.start()
        return run

    def _on_step(self, step: Any) -> None:
        if self._run is None:
            return
        self._run.steps.append(step)
        if isinstance(step, Found):
            self._progress.setValue(len(self._run.steps))
        if isinstance(step, Step):
            if len(step.rows):
                assert self._run.table is not None
                with_results(self._run.table, step.rows, step.predictions, step.errors)
                self._progress.setValue(self._progress.value() + len(step.rows))
            else:
                self._say("Classifying…")

    def _on_returned(self, trouble: str) -> None:
        if self._run is not None:
            self._run.trouble = trouble

    def _on_finished(self) -> None:
        run, self._run = self._run, None
        if run is None:  # the widget was closed meanwhile
            return
        self._set_busy(False)
        gone = [layer for layer in (run.image, run.marks) if layer is not None]
        gone = [layer.name for layer in gone if layer not in self._viewer.layers]
        if gone:
            show_warning(f"'{gone[0]}' was removed during the run; nothing was added.")
        else:
            try:
                run.finish(run)
            except WbcError as error:
                run.trouble = str(error)
        self._show_results()
        note = run.note or guess_of_colours(run)
        if run.trouble:
            self._complain(run.trouble)
        elif note:
            self._say(note)

    def _set_busy(self, busy: bool) -> None:
        self.form.set_enabled(not busy)
        for part in (self._find, self._classify, self._canonical, self._command):
            part.enabled = not busy
        self._cancel.enabled = busy

    def _on_layer_inserted(self, event: Any) -> None:
        if has_results(event.value):  # of a finished run, whose image was there before
            self._show_results()

    def _on_layer_removed(self, event: Any) -> None:
        run = self._run
        if run is not None and (event.value is run.image or event.value is run.marks):
            run.stop()
        self._show_results()

    # --- what comes of it ---

    def _finish_cells(self, run: Run) -> None:
        layer = put_results(self._viewer, run)
        if layer is not None:
            self.classified.emit(layer)

    def _finish_finding(self, run: Run) -> None:
        layer = put_boxes(self._viewer, run)
        if layer is not None:
            self.form.reset_choices()
            self.form.image.value = run.image
            self.form.marks.value = layer

    def _finish_canonical(self, run: Run) -> None:
        put_canonical(self._viewer, run)

    def _results(self) -> Layer | None:
        """Return the layer with the results of the chosen cells."""
        return results_of(self._viewer, self.form.image.value, self.form.marks.value)

    def _show_results(self) -> None:
        """Show what is known of the chosen cells: how many, and by which model."""
        if self._run is not None:
            return
        layer = self._results()
        done, total = extent(self.form.image.value, self.form.marks.value, layer)
        self._progress.setFormat("%v of %m cells")
        self._progress.setTextVisible(total > 0)
        self._progress.setRange(0, max(total, 1))
        self._progress.setValue(done)
        if layer is None:
            self._say("")
            return
        model = mark_of(layer)["model"]
        self._say(f"By model {model['name']} ({model['sha256'][:8]}) on {model['device']}")

    # --- closing ---

    def let_go(self) -> None:
        """Stop what is under way and let go of the viewer."""
        if self._run is not None:
            self._run.stop()
            self._run = None
        for signal, callback in self._connections():
            signal.disconnect(callback)


def _row(*buttons: PushButton) -> QWidget:
    row = Container(widgets=buttons, layout="horizontal", labels=False)
    row.margins = (0, 0, 0, 0)
    return row.native
