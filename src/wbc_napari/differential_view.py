"""The differential while it is being made: reviewed cells, those not yet, limits, ranges, a target."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
)

from wbc_batch.report import differential, group_flags, profile_names, read_profile
from wbc_batch.schema import CLASSES, STATUS_OK
from wbc_napari.differential_table import SIDES, DifferentialTable
from wbc_napari.focus import keep_keys
from wbc_napari.follower import Follower
from wbc_napari.notices import plain, telling
from wbc_napari.sentence_label import sentence_label

if TYPE_CHECKING:
    from wbc_batch.report import Flag, Profile
    from wbc_napari.session import Session

__all__ = ["PAUSE", "TARGETS", "DifferentialView"]

#: Cells of a differential count, as laboratories agree on (CLSI H20 counts 200 twice).
TARGETS = (100, 200, 400)

#: The last choice of a profile: a file of the user's own.
_FILE = "from a file…"

#: Milliseconds: keys are pressed faster than limits need to be read.
PAUSE = 60


class DifferentialView(Follower):
    """Shows the differential of a session; the figures are those of `wbc_batch.report`."""

    def __init__(self) -> None:
        super().__init__(PAUSE)
        self._build()

    def _build(self) -> None:
        self._table = DifferentialTable()
        self._target = QComboBox()
        self._target.addItems([str(count) for count in TARGETS])
        self._target.setToolTip("Number of cells of the five classes to count")
        self._target.currentIndexChanged.connect(self.refresh)
        self._progress = QProgressBar()
        self._ranges = QComboBox()
        self._ranges.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._ranges.setToolTip("Reference ranges to compare the shares with")
        self._ranges.setAccessibleName("Reference ranges")
        self._ranges.addItem("none", None)
        self._ranges.addItem(_FILE)
        for name in profile_names():
            self._add_profile(name)
        self._chosen = 0
        self._ranges.activated.connect(self._on_profile)
        for field in (self._target, self._ranges):
            keep_keys(field)
        self._flags = sentence_label()
        self._flags.setToolTip("Points to check; none of them is a diagnostic finding")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        form = QFormLayout()
        line = QHBoxLayout()
        line.addWidget(self._target)
        line.addWidget(self._progress, 1)
        form.addRow("Target", line)
        form.addRow("Ranges", self._ranges)
        layout.addLayout(form)
        layout.addWidget(self._flags)

    @property
    def profile(self) -> "Profile | None":
        """The chosen reference ranges."""
        return self._ranges.currentData()

    def _add_profile(self, name: str) -> int:
        """Offer a profile, above the choice of a file; return its place."""
        profile = read_profile(name)
        assert profile is not None
        place = self._ranges.count() - 1
        self._ranges.insertItem(place, profile.title, profile)
        self._ranges.setItemData(place, plain(profile.source), Qt.ItemDataRole.ToolTipRole)
        return place

    def _on_profile(self, place: int) -> None:
        if self._ranges.itemText(place) == _FILE:
            self._ranges.setCurrentIndex(self._chosen)
            kinds = "Profile (*.yaml *.yml)"
            path, _ = QFileDialog.getOpenFileName(self, "Reference ranges", "", kinds)
            if path:
                telling(lambda: self._ranges.setCurrentIndex(self._add_profile(path)))
        self._chosen = self._ranges.currentIndex()
        self.refresh()

    def refresh(self) -> None:
        """Count again."""
        session = self._session
        if session is None:
            said = open_ = pd.DataFrame({"label": [], "confidence": []})
        else:
            said, open_ = _apart(session)
        counted = differential(said)
        flags = group_flags(counted, self.profile) if len(said) else []
        hidden = session is not None and session.blind
        self._table.show_counts(
            _by_label(counted),
            {} if hidden else _by_label(differential(open_)),
            self.profile,
            {flag.label: flag.side for flag in flags},
        )
        self._flags.setText("\n".join(_sentence(flag) for flag in flags))
        self._flags.setVisible(bool(flags))
        self._show_target(int(said["label"].isin(CLASSES).sum()))

    def _show_target(self, count: int) -> None:
        target = int(self._target.currentText())
        reached = count >= target
        self._progress.setRange(0, target)
        self._progress.setValue(min(count, target))
        self._progress.setFormat(
            f"✓ {count} cells: reached" if reached else f"{count} of {target} cells"
        )


def _apart(session: "Session") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the reviewed cells with the reader's labels, and the others with the model's."""
    cells, reviewed = session.cells, session.review.reviewed
    others = ~reviewed & (cells["status"] == STATUS_OK).to_numpy()
    facts = ["confidence"] if session.blind else ["confidence", "novelty"]
    said = cells.loc[reviewed, facts].assign(label=session.review.labels[reviewed])
    return said, cells.loc[others, ["label", *facts]]


def _sentence(flag: "Flag") -> str:
    about = f"{flag.label}: " if flag.label else ""
    return f"{SIDES[flag.side]}{about}{flag.flag} ({flag.detail})"


def _by_label(table: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    return {row["label"]: row for row in table.to_dict("records")}
