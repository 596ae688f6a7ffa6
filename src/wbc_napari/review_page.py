"""The page "Review": a queue of cells, one after the other, a key for each label."""

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from wbc_batch.schema import LABELS, STATUS_ERROR
from wbc_napari.cell_card import CellCard
from wbc_napari.focus import keep_keys
from wbc_napari.keys import KEY_HELP, LABEL_KEYS, key_actions
from wbc_napari.palette import swatch
from wbc_napari.review import NOT_CLASSIFIED, ORDERS
from wbc_napari.sentence_label import sentence_label
from wbc_napari.tables import PENDING

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["ReviewPage"]

_ALL = "all classes"


class ReviewPage(QWidget):
    """Shows the queue of a session and labels its cells.

    Parameters
    ----------
    reader : str
        The name that stands in the field of the reader at first.
    """

    #: What a button or key means, by its key; see `wbc_napari.keys.key_actions`.
    acted = Signal(str)
    #: A blind review begins (True) or ends.
    blinded = Signal(bool)
    #: Another reader.
    reader_changed = Signal(str)

    def __init__(self, reader: str) -> None:
        super().__init__()
        self._session: Session | None = None
        self._build(reader)

    def _build(self, reader: str) -> None:
        self.reader = QLineEdit(reader)
        self.reader.setToolTip(
            "Your name; it is saved with each label. A second reader enters another name."
        )
        self.reader.editingFinished.connect(lambda: self.reader_changed.emit(self.reader.text()))
        self.reader.returnPressed.connect(self.setFocus)  # the keys that follow are for the cells
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self._blind = QCheckBox("blind")
        self._blind.setToolTip(
            "Hide the model's labels and shuffle the cells; the random seed is kept"
        )
        self._blind.toggled.connect(self.blinded)
        self._order = QComboBox()
        self._order.addItems(list(ORDERS))
        self._order.setToolTip("Which cells come first")
        self._label = QComboBox()
        self._label.addItems([_ALL, *LABELS, NOT_CLASSIFIED])
        self._label.setToolTip("Show only cells that have this label now")
        self._open = QCheckBox("not yet reviewed")
        self._open.setToolTip("Skip the cells that you have labeled")
        for combo in (self._order, self._label):
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            combo.activated.connect(self.order_queue)
        self._open.toggled.connect(self.order_queue)
        for field in (self._blind, self._order, self._label, self._open):
            keep_keys(field)
        form = QFormLayout()
        form.addRow("Reader", _line(self.reader, self._blind))
        form.addRow("Order", self._order)
        form.addRow("Only", _line(self._label, self._open))
        self._card = CellCard()
        self._about = sentence_label()
        self._about.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._about.setMinimumHeight(self._about.fontMetrics().lineSpacing() * 2)
        self._progress = QProgressBar()
        self._progress.setFormat("%v of %m reviewed")
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self._card, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(self._about)
        layout.addLayout(self._labels())
        layout.addLayout(self._steps())
        layout.addWidget(self._progress)
        layout.addStretch(1)

    def _labels(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setSpacing(3)
        for place, (key, label) in enumerate(LABEL_KEYS.items()):
            button = self._button(
                f"{key}  {label}", key, f"Label this cell {label} and go to the next"
            )
            button.setIcon(QIcon(swatch(label, 12)))
            grid.addWidget(button, place // 3, place % 3)
        return grid

    def _steps(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setSpacing(3)
        texts = {
            "Left": ("←", "Previous cell (left arrow)"),
            "Space": ("Space  confirm", "Keep the label that the cell has and go to the next"),
            "Right": ("→", "Next cell (right arrow)"),
            "Control-Z": ("Undo", "Undo the last change (Ctrl+Z), wherever it was made"),
            "Control-Shift-Z": ("Redo", "Redo the last undone change (Ctrl+Shift+Z)"),
        }
        for place, (key, (text, tip)) in enumerate(texts.items()):
            grid.addWidget(self._button(text, key, tip), place // 3, place % 3)
        keys = QLabel("Keys: 1–5, U, Space, ← →, Ctrl+Z")
        keys.setWordWrap(True)
        keys.setToolTip("\n".join(f"{key}: {meaning}" for key, meaning in KEY_HELP.items()))
        grid.addWidget(keys, 1, 2)
        return grid

    def _button(self, text: str, key: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        keep_keys(button)
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        button.clicked.connect(lambda: self.acted.emit(key))
        return button

    def set_session(self, session: "Session | None") -> None:
        """Follow another session, or none."""
        if self._session is not None:
            self._session.changed.disconnect(self._on_changed)
            self._session.moved.disconnect(self._on_moved)
        self._session = session
        self._card.set_session(session)
        self.setEnabled(session is not None)
        if session is not None:
            session.changed.connect(self._on_changed)
            session.moved.connect(self._on_moved)
            self.order_queue()
        self._show()

    @property
    def blind(self) -> bool:
        """Whether a blind review is wished for."""
        return self._blind.isChecked()

    def act(self, key: str) -> None:
        """Do what a key means."""
        if self._session is not None:
            key_actions(self._session)[key]()

    def order_queue(self, _: Any = None) -> None:
        """Order the queue as the fields say; where this page is open, begin with its first cell."""
        session = self._session
        if session is None:
            return
        self._order.setEnabled(not session.blind)
        self._label.setEnabled(not session.blind)
        label = self._label.currentText() if self._label.currentIndex() else ""
        session.set_queue(self._order.currentText(), label, self._open.isChecked())
        if not self.isHidden():
            self.begin()
        self._show()

    def begin(self) -> None:
        """Go to the first cell of the queue, unless one of its cells is the present one."""
        if self._session is not None and self._session.place < 0:
            self._session.step(0)

    def _on_changed(self, _: Any) -> None:
        self._show()

    def _on_moved(self, _: int) -> None:
        self._show()

    def _show(self) -> None:
        session = self._session
        if session is None:
            self._about.setText("Classify cells, or open a run, to review them.")
            self._progress.setRange(0, 1)
            self._progress.setValue(0)
            return
        if not self.reader.hasFocus():
            self.reader.setText(session.review.reader)
        listed = (session.cells["status"] != PENDING).to_numpy()
        self._progress.setRange(0, max(int((listed | session.review.reviewed).sum()), 1))
        self._progress.setValue(int(session.review.reviewed.sum()))
        self._about.setText(_about(session))


def _about(session: "Session") -> str:
    """Say what is known of the present cell, in two lines."""
    if session.row < 0:
        return "No cell is left in this queue." if not len(session.rows) else ""
    cell = session.cells.iloc[session.row]
    place = (
        f"{session.place + 1} of {len(session.rows)}" if session.place >= 0 else "not in the queue"
    )
    mine = session.review.labels[session.row]
    said = f"You: {mine}" if mine else "not reviewed"
    if session.blind:
        return f"Cell {place}\n{said}"
    if cell["status"] == STATUS_ERROR:
        return f"Cell {place} · {said}\nNot classified: {cell['error']}"
    sure = "" if np.isnan(cell["confidence"]) else f" {cell['confidence']:.2f}"
    new = "" if np.isnan(cell["novelty"]) else f", novelty {cell['novelty']:.2f}"
    guess = f" ({cell['predicted']})" if cell["label"] != cell["predicted"] else ""
    return f"Cell {place} · {said}\nModel: {cell['label']}{guess}{sure}{new}"


def _line(*widgets: QWidget) -> QHBoxLayout:
    line = QHBoxLayout()
    for widget in widgets:
        line.addWidget(widget)
    return line
