"""The page "Report": the live differential, how readers agree, and what is written to files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QGridLayout,
    QPushButton,
    QVBoxLayout,
)

from wbc_batch.errors import InputError, RunError, WbcError
from wbc_batch.schema import STATUS_OK
from wbc_napari.batch_run import is_run
from wbc_napari.commands import report_command
from wbc_napari.differential_view import PAUSE, DifferentialView
from wbc_napari.export import Export, save_corrections, write_export
from wbc_napari.focus import keep_keys
from wbc_napari.follower import Follower
from wbc_napari.marks import mark_of
from wbc_napari.notices import show_error, show_info
from wbc_napari.runner import saying_why
from wbc_napari.sentence_label import sentence_label

if TYPE_CHECKING:
    from wbc_napari.session import Session

__all__ = ["ReportPage", "agreements"]


class ReportPage(Follower):
    """Shows the figures of a session and writes its files."""

    def __init__(self) -> None:
        super().__init__(PAUSE)
        self._worker: Any = None
        self._folder = Path()
        self._saved = Path("corrections.csv")
        self._differential = DifferentialView()
        self._agreement = sentence_label()
        self._agreement.setToolTip(
            "Cohen's kappa: agreement beyond chance, over the cells that both have labeled"
        )
        self._message = sentence_label()
        buttons: tuple[tuple[str, str, Callable[[], None]], ...] = (
            (
                "Export…",
                "Write tables, page, crops and an image of the gallery into an empty folder, or over an "
                "earlier export",
                self._ask_and_export,
            ),
            (
                "Save corrections…",
                "Write the reviewed cells as a file for wbc-batch report --review",
                self._ask_and_save,
            ),
            (
                "Copy as command",
                "Copy the wbc-batch command that merges the corrections into the report of this run",
                self.copy_command,
            ),
        )
        grid = QGridLayout()
        for place, (text, tip, act) in enumerate(buttons):
            button = QPushButton(text)
            button.setToolTip(tip)
            keep_keys(button)
            button.clicked.connect(act)
            grid.addWidget(button, place // 2, place % 2)
        layout = QVBoxLayout(self)
        layout.addWidget(self._differential)
        layout.addWidget(self._agreement)
        layout.addLayout(grid)
        layout.addWidget(self._message)
        layout.addStretch(1)

    def set_session(self, session: "Session | None") -> None:
        """Follow another session, or none."""
        super().set_session(session)
        self.setEnabled(session is not None)
        self._differential.set_session(session)
        self._message.clear()

    def refresh(self) -> None:
        """Compute the agreement of the reader with the model and with other readers."""
        session = self._session
        lines = [] if session is None or session.blind else agreements(session)
        self._agreement.setText("\n".join(lines))
        self._agreement.setVisible(bool(lines))

    # --- files ---

    def _ask_and_export(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Empty folder, or an earlier export, for the results"
        )
        if folder:
            self.export(Path(folder))

    def export(self, folder: Path) -> None:
        """Write everything into a folder, in a thread."""
        session = self._session
        if session is None or self._worker is not None:
            return
        profile = self._differential.profile
        what = Export(folder, session.cells.copy(), session.crops, session.model, profile)
        self._folder = folder
        self._message.setText("Writing…")
        self._worker = create_worker(saying_why, _written(what), _ignore_errors=True)
        # Of this object, so that Qt lets go of them when the dock is closed meanwhile.
        self._worker.returned.connect(self._exported)
        self._worker.finished.connect(self._forget_worker)
        self._worker.start()

    def _exported(self, trouble: str) -> None:
        if trouble:
            self._complain(trouble)
        else:
            self._message.setText(f"Written to {self._folder}.")
            show_info(f"The results were written to {self._folder}.")

    def _forget_worker(self) -> None:
        self._worker = None

    def _ask_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Corrections", "corrections.csv", "Table (*.csv)"
        )
        if path:
            self.save_corrections(Path(path))

    def save_corrections(self, path: Path) -> None:
        """Write the reviewed cells."""
        if self._session is None:
            return
        try:
            count = save_corrections(self._session.cells, path)
        except WbcError as error:
            self._complain(str(error))
        else:
            self._saved = path
            self._message.setText(f"{count} reviewed cells were written to {path}.")

    def copy_command(self) -> None:
        """Copy the line that merges the corrections."""
        session = self._session
        if session is None:
            return
        try:
            run = mark_of(session.layer).get("run", "")
            if not is_run(Path(run)):
                raise InputError(
                    "These cells are not from a batch run; press Export and open the folder that is written."
                )
            folder = Path(run) if Path(run).is_dir() else Path(run).parent
            line = report_command(str(folder), str(self._saved))
        except WbcError as error:
            self._complain(str(error))
            return
        QApplication.clipboard().setText(line)
        self._message.setText(f"Copied: {line}")

    def _complain(self, sentence: str) -> None:
        show_error(sentence)
        self._message.setText(sentence)


def _written(what: Export) -> Iterator[int]:
    """Write an export; a `RunError` at its end says so where crops could not be read."""
    lost = yield from write_export(what)
    if lost:
        raise RunError(lost)


def agreements(session: "Session") -> list[str]:
    """How the present reader agrees with the model and with each other reader, a line for each."""
    from wbc_batch.report.agreement import agreement

    mine = session.review.labels
    model = np.where(session.cells["status"] == STATUS_OK, session.cells["label"], "")
    others = {"the model": model}
    others |= {
        name: reading.label
        for name, reading in session.review.readings.items()
        if name != session.review.reader and (reading.label != "").any()
    }
    lines = []
    for name, labels in others.items():
        found = agreement(mine, labels)
        if found.cells:
            kappa = "" if np.isnan(found.kappa) else f", κ = {found.kappa:.2f}"
            lines.append(f"With {name}: {found.agreeing} of {found.cells} cells agree{kappa}")
    return lines
