"""The dock widget "Adapt to my laboratory": wires `wbc_napari.adapt` to buttons, and nothing more."""

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FileEdit
from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from wbc_batch.errors import WbcError
from wbc_batch.names import command_text
from wbc_napari.adapt import Adaptation, Comparison, Progress, adapt, adaptation, train_command
from wbc_napari.blinding import whole_table
from wbc_napari.companions import cells_layers, crops_behind
from wbc_napari.docking import Docked
from wbc_napari.marks import mark_of
from wbc_napari.notices import show_error, show_info
from wbc_napari.runner import chosen_model, saying_why
from wbc_napari.sentence_label import sentence_label

if TYPE_CHECKING:
    import napari

__all__ = ["AdaptWidget"]

_ABOUT = (
    "Fine-tunes the model in the background with the cells that you reviewed. A quarter of the reviewed "
    "cells is held out, and the models before and after are compared on them."
)


class AdaptWidget(Docked):
    """Adapt a model to reviewed cells.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Its layers with reviewed cells are offered.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._worker: GeneratorWorker | None = None
        self._stop = Event()
        self._compared = False
        self._build()
        self._begin.clicked.connect(self.begin)
        self._cancel.clicked.connect(self.cancel)
        self._copy.clicked.connect(self.copy_command)
        self._layer.changed.connect(self._choose_model)
        self._choose_model()
        for signal in self._signals():
            signal.connect(self.reset_choices)

    def _build(self) -> None:
        self._layer = ComboBox(
            choices=lambda _: cells_layers(self._viewer),
            nullable=False,
            tooltip="The layer whose reviewed cells the model learns from",
        )
        self._folder = FileEdit(
            mode="d",
            nullable=True,
            tooltip="A new or empty folder for crops, training and the new model, which gets its name",
        )
        self._model = FileEdit(
            mode="d",
            nullable=True,
            tooltip="Folder of the model bundle to start from; leave empty for the bundled model",
        )
        self._model.line_edit.native.setPlaceholderText("bundled")
        for field in (self._folder, self._model):
            field.choose_btn.text = "Choose…"
        self._begin = QPushButton("Adapt")
        self._begin.setToolTip(
            "Write the crops, train and compare; press again to continue where it stopped"
        )
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Stop; finished epochs are kept")
        self._copy = QPushButton("Copy as command")
        self._copy.setToolTip("Copy the wbc-batch command of this training to the clipboard")
        self._cancel.setEnabled(False)
        self._progress = QProgressBar()
        self._progress.setRange(0, 100)
        self._line = sentence_label()
        self._table = QTableWidget(2, 3)
        self._table.setHorizontalHeaderLabels(["held-out cells", "agree with you", "95 % limits"])
        self._table.setVerticalHeaderLabels(["before", "after"])
        self._table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self._table.setAccessibleName("Both models on the held-out cells")
        self._table.setMaximumHeight(92)
        self._table.hide()
        about = QLabel(_ABOUT)
        about.setWordWrap(True)
        form = QFormLayout()
        form.addRow("Cells", self._layer.native)
        form.addRow("Model", self._model.native)
        form.addRow("Folder", self._folder.native)
        buttons = QHBoxLayout()
        for button in (self._begin, self._cancel, self._copy):
            buttons.addWidget(button)
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.addWidget(about)
        layout.addLayout(form)
        layout.addLayout(buttons)
        for part in (self._progress, self._line, self._table):
            layout.addWidget(part)
        layout.addStretch(1)
        QVBoxLayout(self).addWidget(_scrolled(content))

    def _signals(self) -> list[Any]:
        events = self._viewer.layers.events
        return [events.inserted, events.removed, events.renamed]

    def reset_choices(self, _: Any = None) -> None:
        """Offer the layers with results that there are now."""
        self._layer.reset_choices()

    def _choose_model(self, _: Any = None) -> None:
        """Start from the model that classified the cells, where its folder is known."""
        layer = self._layer.value
        model = {} if layer is None else mark_of(layer)["model"]
        folder = model.get("folder", "default")
        self._model.value = None if folder == "default" else folder

    def _plan(self) -> Adaptation | None:
        """Return what was chosen; None, and a notification, where that will not do."""
        layer, folder = self._layer.value, self._folder.value
        try:
            if layer is None:
                show_error("There are no classified cells; classify and review some first.")
                return None
            if folder is None or folder == Path():
                show_error("Choose a folder for the adapted model.")
                return None
            crops = crops_behind(self._viewer, layer)
            model = chosen_model(self._model.value)
            return adaptation(whole_table(layer), crops, folder.expanduser().resolve(), model)
        except WbcError as error:
            show_error(str(error))
        except RuntimeError:  # of expanduser
            show_error(f"{folder} begins with an unknown user name; choose another folder.")
        return None

    def begin(self) -> None:
        """Adapt the model in a thread, which waits for a process."""
        plan = self._plan()
        if plan is None:
            return
        self._stop = Event()
        # With the window; of the dock alone, see let_go.
        self.destroyed.connect(self._stop.set)
        self._compared = False
        self._table.hide()
        worker = create_worker(saying_why, adapt(plan, self._stop), _ignore_errors=True)
        self._worker = worker
        worker.yielded.connect(self._on_step)
        worker.returned.connect(self._on_returned)
        worker.finished.connect(self._on_finished)
        self._set_busy(True)
        worker.start()

    def cancel(self) -> None:
        """Ask the training to stop."""
        self._stop.set()
        self._cancel.setEnabled(False)

    def copy_command(self) -> None:
        """Copy the line of the training."""
        plan = self._plan()
        if plan is not None:
            QApplication.clipboard().setText(command_text(train_command(plan)))
            show_info("The command was copied.")

    def _on_step(self, step: Progress | Comparison) -> None:
        if isinstance(step, Comparison):
            self._show(step)
            return
        self._line.setText(step.line)
        if step.done is not None:
            self._progress.setValue(round(100 * step.done))

    def _on_returned(self, trouble: str) -> None:
        if trouble and self._worker is not None:
            self._line.setText(trouble)
            show_error(trouble)

    def _on_finished(self) -> None:
        stopped = self._stop.is_set() and not self._compared
        self._worker = None
        self._set_busy(False)
        if stopped:
            self._line.setText("Stopped. Press Adapt to continue with the same corrections.")

    def _show(self, comparison: Comparison) -> None:
        self._compared = True
        for row, agreed in enumerate((comparison.before, comparison.after)):
            lower, upper = (100 * limit for limit in agreed.limits)
            texts = (str(agreed.cells), f"{agreed.agreeing} ({100 * agreed.fraction:.0f} %)")
            for column, text in enumerate((*texts, f"{lower:.0f} – {upper:.0f} %")):
                self._table.setItem(row, column, QTableWidgetItem(text))
        self._table.resizeColumnsToContents()
        self._table.show()
        self._progress.setValue(100)
        about = f"The adapted model: {comparison.bundle}\nChoose it as Model in Classify cells."
        self._line.setText("\n".join((about, *comparison.notes)))

    def _set_busy(self, busy: bool) -> None:
        for part in (
            *(field.native for field in (self._layer, self._model, self._folder)),
            self._begin,
            self._copy,
        ):
            part.setEnabled(not busy)
        self._cancel.setEnabled(busy)

    # --- closing ---

    def let_go(self) -> None:
        """Stop the training and let go of the viewer."""
        self._stop.set()
        for signal in self._signals():
            signal.disconnect(self.reset_choices)


def _scrolled(content: QWidget) -> QScrollArea:
    """Let a page be lower than it would like to be: the window shall not grow beyond the screen."""
    area = QScrollArea()
    area.setWidget(content)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setMinimumWidth(content.minimumSizeHint().width())
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return area
