"""A review of one layer of cells: changes go to the layer, the journal and whoever listens. Knows no Qt."""

import getpass
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Layer, Points
from numpy.typing import NDArray
from psygnal import Signal

from wbc_batch.errors import InputError, RunError
from wbc_batch.schema import REVIEW_COLUMNS, STATUS_ERROR
from wbc_napari.appearance import forget_colour, repaint
from wbc_napari.blinding import hide_class, kept_table, show_class
from wbc_napari.companions import crops_behind, image_of, take_up_new_marks
from wbc_napari.crops import Crops, CropStack, FieldCrops
from wbc_napari.geometry import world_matrix
from wbc_napari.journal import Journal, journal_path
from wbc_napari.marks import mark_of
from wbc_napari.review import NOT_CLASSIFIED, ORDERS, Change, Review, queue
from wbc_napari.tables import current_labels, reviewed_labels
from wbc_napari.zoom import camera

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Session", "default_reader"]

#: Part of the shorter side of the canvas that a cell of a field fills when the camera has moved to it.
_FILL = 0.4

#: Of more cells napari's table of features, where it is open, is not filled anew at each label: it measures
#: the text of all of them.
_FOLLOWED = 200


def default_reader() -> str:
    """Return the name of the user's account."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # the last on Windows, before Python 3.13
        return "reviewer"


def _later(at: str, known: str) -> bool:
    """Whether a time is later than one that is known (""); a time that cannot be told is not."""
    try:
        return not known or datetime.fromisoformat(at) > datetime.fromisoformat(known)
    except (ValueError, TypeError):  # no time at all; one of them without a time zone
        return False


def _of_one_image(crops: Crops, others: Crops) -> bool:
    """Whether crops come from the very same array."""
    kinds = CropStack | FieldCrops
    return isinstance(crops, kinds) and isinstance(others, kinds) and crops.data is others.data


def _enter(cells: Any, changes: Sequence[Change]) -> None:
    """Enter changes into a table, in place."""
    places = [cells.columns.get_loc(name) for name in REVIEW_COLUMNS]
    for change in changes:
        said = (change.new, change.by, change.at) if change.new else ("", "", "")
        for place, value in zip(places, said, strict=True):
            cells.iat[change.row, place] = value


class Session:
    """Looks at the cells of a layer one after the other, and labels them.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Points or Shapes
        With results, see `cells_layers`.
    reader : str
    journal : Path, optional
        Default: beside the file that is reviewed, see `wbc_napari.journal.journal_path`.
    earlier : Session, optional
        A review of the same layer, before its cells or results were changed, that goes on.

    Attributes
    ----------
    changed : Signal
        Labels were changed: ndarray of the rows.
    moved : Signal
        Another cell is the present one: its row, or -1.
    """

    changed = Signal(object)
    moved = Signal(int)

    def __init__(
        self,
        viewer: "ViewerModel",
        layer: Layer,
        reader: str,
        journal: Path | None = None,
        earlier: "Session | None" = None,
    ) -> None:
        self.viewer, self.layer = viewer, layer
        show_class(layer)
        take_up_new_marks(viewer, layer)
        self.crops = crops_behind(viewer, layer)
        cells = layer.features
        self.review = Review(cells["cell_id"].fillna("").tolist(), reader)
        self.model: dict[str, Any] = mark_of(layer)["model"]
        self.journal = self._journal(journal, earlier)
        self.seed: int | None = None if earlier is None else earlier.seed
        self._saving = True
        self._behind = False
        self.rows = np.zeros(0, np.intp)
        self.row = -1 if earlier is None else self._followed(earlier)
        saved = self.journal.read(self.review.cell_ids.tolist())
        self._unsaved = self._only_in_the_table(cells, saved)
        self.review.restore([*saved, *self._unsaved])
        new = self.review.labels != reviewed_labels(cells)
        self.restored = int((self.review.reviewed & new).sum())
        if earlier is not None:
            self.review.carry_on(earlier.review)
        self._show_reading()
        self.set_queue()

    def _followed(self, earlier: "Session") -> int:
        """Row of the present cell of an earlier review; where that is gone, of the next one in the queue."""
        if earlier.row < 0:
            return -1
        place = earlier.place
        near = [earlier.row, *earlier.rows[place + 1 :], *earlier.rows[: max(place, 0)][::-1]]
        rows = {cell_id: row for row, cell_id in enumerate(self.review.cell_ids) if cell_id}
        ids = (earlier.review.cell_ids[row] for row in near)
        return next((rows[cell_id] for cell_id in ids if cell_id in rows), -1)

    def _journal(self, path: Path | None, earlier: "Session | None") -> Journal:
        # To read them all again would be felt at each point that is drawn.
        known = earlier is not None and _of_one_image(self.crops, earlier.crops)
        pixels = earlier.journal.pixels if earlier and known else self.crops.fingerprint()
        if path is None:
            mark = mark_of(self.layer)
            source = mark.get("run") or (self.crops.cell(0).source if len(self.crops) else "")
            path = journal_path(source, self.layer.name, pixels)
        return Journal(path, self.model.get("sha256", ""), pixels)

    def _only_in_the_table(self, cells: pd.DataFrame, journal: Sequence[Change]) -> list[Change]:
        """Return what the table says of a review, and the journal does not, or what is older."""
        if not set(REVIEW_COLUMNS) <= set(cells.columns):
            return []
        known = {(change.by, change.cell_id): change.at for change in journal}
        said = cells[reviewed_labels(cells) != ""]
        rows = zip(said.index, *(said[name] for name in ("cell_id", *REVIEW_COLUMNS)), strict=True)
        changes = [
            Change(row, cell_id, "", label, by or self.review.reader, str(at))
            for row, cell_id, label, by, at in rows
        ]
        return [
            change
            for change in changes
            if _later(change.at, known.get((change.by, change.cell_id), ""))
        ]

    @property
    def others(self) -> dict[str, int]:
        """How many cells each other reader has labelled."""
        counts = {
            reader: int((reading.label != "").sum())
            for reader, reading in self.review.readings.items()
        }
        return {
            reader: count
            for reader, count in counts.items()
            if count and reader != self.review.reader
        }

    # --- what is shown ---

    @property
    def cells(self) -> pd.DataFrame:
        """The table of the layer; in blind mode, too, with what tells the class."""
        kept = kept_table(self.layer)
        return self.layer.features if kept is None else kept

    @property
    def blind(self) -> bool:
        """Whether predictions are hidden and the order is shuffled."""
        return self.seed is not None

    def labels(self) -> NDArray[np.object_]:
        """Present label of each cell, for all to see: in blind mode only what the reader said.

        `NOT_CLASSIFIED` where the model failed, "" where there is nothing to say.
        """
        if self.blind:
            return self.review.labels.copy()
        labels = current_labels(self.cells)
        failed = (self.cells["status"] == STATUS_ERROR).to_numpy() & (labels == "")
        labels[failed] = NOT_CLASSIFIED
        return labels

    def set_blind(self, seed: int | None) -> None:
        """Hide what tells the class and shuffle the queue by a seed; None shows all again."""
        self.seed = seed
        if self.blind:
            forget_colour(self.layer)
        self._show()
        self.set_queue()
        self.changed.emit(np.arange(len(self.cells)))

    def leave(self) -> None:
        """End the review: the layer shows all again, and napari's own table is up to date."""
        if self.blind:
            show_class(self.layer)
            repaint(self.layer)
        self.tell_table()

    def read_as(self, reader: str) -> None:
        """Make someone the reader; the layer shows that reader's labels."""
        self.review.read_as(reader)
        self._show_reading()
        self.changed.emit(np.arange(len(self.cells)))

    def _show_reading(self) -> None:
        self._save_what_the_table_loses()
        show_class(self.layer)
        review, cells = self.review, self.layer.features
        reviewed = review.reviewed
        cells["reviewed_label"] = pd.Series(review.labels, cells.index, dtype=object)
        cells["reviewed_by"] = pd.Series(
            np.where(reviewed, review.reader, "").astype(object), cells.index, dtype=object
        )
        cells["reviewed_at"] = pd.Series(review.times, cells.index, dtype=object)
        self.layer.features = cells
        self._show()

    def _show(self) -> None:
        """Show the cells on the canvas, and what is to be seen of them in napari's own words."""
        if self.blind:
            hide_class(self.layer)
        else:
            show_class(self.layer)
        repaint(self.layer, hidden=self.blind)

    def _save_what_the_table_loses(self) -> None:
        """Write into the journal what another reader said and only the table knows: it shows one reading.

        Of a run the table is a file, else it is lost with the layer.
        """
        kept = "run" in mark_of(self.layer)
        lost = [change for change in self._unsaved if not kept or change.by != self.review.reader]
        if not lost:
            return
        with suppress(RunError):  # told when the reader says something
            self.journal.append(lost, "import")
            self._unsaved = [change for change in self._unsaved if change not in lost]

    # --- the queue ---

    def set_queue(
        self, order: str = next(iter(ORDERS)), label: str = "", unreviewed: bool = False
    ) -> None:
        """Order the cells to look at; the present one stays where it is among them."""
        shown = self.cells
        if self.blind:
            label = ""
        self.rows = queue(shown, order, label, unreviewed, self.seed)

    @property
    def place(self) -> int:
        """Number of the present cell in the queue; -1 where it is not among them."""
        found = np.flatnonzero(self.rows == self.row)
        return int(found[0]) if len(found) else -1

    def step(self, by: int) -> None:
        """Go on, or back, in the queue; it ends at its ends."""
        if len(self.rows):
            self.go(int(self.rows[min(max(self.place + by, 0), len(self.rows) - 1)]))

    def go(self, row: int) -> None:
        """Make a cell the present one: the camera follows."""
        if not 0 <= row < len(self.layer.data):
            return
        self.row = row
        points = isinstance(self.layer, Points)
        data = np.asarray(self.layer.data[row], float)
        world = np.asarray(self.layer.data_to_world(data if points else data.mean(axis=0)))
        dims = self.viewer.dims
        before = dims.point
        if points:  # the layer's setter would also make this cell the pattern for new points
            self.layer.selected_data.replace_selection({row})
        else:
            self.layer.selected_data = {row}
        first = dims.ndim - len(world)
        dims.set_point(range(first, dims.ndim - 2), world[:-2])
        if points and dims.point == before:  # else the slider has drawn the selection
            self.layer.refresh(thumbnail=False, data_displayed=False, extent=False)
        if isinstance(self.crops, FieldCrops):
            camera(self.viewer).center = (0.0, *(float(value) for value in world[-2:]))
            self._zoom_to(row)
        self.moved.emit(row)

    def _zoom_to(self, row: int) -> None:
        """Zoom in until a cell of a field can be told; a nearer view is kept."""
        image = image_of(self.viewer, self.layer)
        if image is None or not isinstance(self.crops, FieldCrops):
            return
        matrix = world_matrix(image)
        side = float(np.linalg.norm(matrix[:-1, image.ndim - 1])) * self.crops.boxes[row, 2:].max()
        # The canvas is some 600 pixels wide where nobody says otherwise.
        wanted = _FILL * 600 / max(side, 1e-9)
        if camera(self.viewer).zoom < wanted / 2:
            camera(self.viewer).zoom = wanted

    # --- labelling ---

    def tell_table(self) -> None:
        """Let napari's own table of features catch up, if anything was changed."""
        if self._behind:
            self._behind = False
            self.layer.events.features()

    def relabel(self, rows: NDArray[np.intp] | list[int], label: str) -> None:
        """Give cells a label; one step of the history."""
        self._tell(self.review.relabel(rows, label), "label")

    def confirm(self, rows: NDArray[np.intp] | list[int]) -> None:
        """Give cells the label that they have, where they have one; in blind mode none has."""
        if self.blind:
            raise InputError("In blind mode there is nothing to confirm; choose a class.")
        labels = current_labels(self.cells.iloc[list(rows)])
        said = {int(row): str(label) for row, label in zip(rows, labels, strict=True) if label}
        if len(rows) and not said:
            raise InputError("The model could not classify this cell; choose a class.")
        self._tell(self.review.label_each(said), "confirm")

    def undo(self) -> None:
        """Take the last change back, and show it."""
        self._tell(self.review.undo(), "undo", show=True)

    def redo(self) -> None:
        """Make the change again that was taken back, and show it."""
        self._tell(self.review.redo(), "redo", show=True)

    def _tell(self, changes: tuple[Change, ...], action: str, show: bool = False) -> None:
        if not changes:
            return
        rows = np.array([change.row for change in changes], np.intp)
        cells = self.layer.features
        _enter(cells, changes)
        if self.blind:
            _enter(self.cells, changes)
        self._behind = True
        if len(cells) <= _FOLLOWED:
            self.tell_table()
        repaint(self.layer, rows, hidden=self.blind)
        self.changed.emit(rows)
        if show:
            self.go(int(rows[0]))
        try:
            self.journal.append(changes, action, self.seed)
        except RunError:
            if self._saving:  # told once; the review goes on
                self._saving = False
                raise
