"""The dock: pages that share one review. Wires them to the viewer, and lets go of it on close."""

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QTabWidget,
    QVBoxLayout,
)

from wbc_batch.errors import WbcError
from wbc_napari import keys
from wbc_napari.appearance import repaint
from wbc_napari.blinding import kept_table, part_copies, show_class
from wbc_napari.classify_widget import ClassifyWidget
from wbc_napari.companions import adopt_reopened, cells_layers, has_pixels
from wbc_napari.docking import Docked
from wbc_napari.focus import keep_keys
from wbc_napari.gallery_view import GalleryView
from wbc_napari.notices import show_error, show_info, telling
from wbc_napari.report_page import ReportPage
from wbc_napari.review_page import ReviewPage
from wbc_napari.session import Session, default_reader
from wbc_napari.zoom import camera, show_captions

if TYPE_CHECKING:
    import napari

__all__ = ["StationWidget"]

#: Of the dock, pixels: nothing in it is cut off, and a screen of 1366 keeps most for the canvas.
_WIDTH = 380

#: How Qt names the keys of a review.
_QT_KEYS = {
    **{Qt.Key.Key_1 + number: str(number + 1) for number in range(5)},
    Qt.Key.Key_U: "U",
    Qt.Key.Key_Space: "Space",
    Qt.Key.Key_Right: "Right",
    Qt.Key.Key_Left: "Left",
}


class StationWidget(Docked):
    """Classify cells, look at them one by one or class by class, count them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.session: Session | None = None
        self._bound: list[Any] = []
        self._told: Any = None
        self.classify = ClassifyWidget(viewer)
        self.review = ReviewPage(default_reader())
        self.gallery = GalleryView()
        self.report = ReportPage()
        self._build()
        self._connect()
        self.reset_choices()

    def _build(self) -> None:
        self._layers = QComboBox()
        self._layers.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._layers.setToolTip("The layer whose cells are reviewed")
        self._layers.setAccessibleName("Cells under review")
        keep_keys(self._layers)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        pages = {
            "Classify": (self.classify, "Find and classify cells"),
            "Review": (self.review, "Cell by cell, the doubtful ones first"),
            "Gallery": (self.gallery, "Class by class"),
            "Report": (self.report, "The differential, and files to export"),
        }
        for title, (page, tip) in pages.items():
            self.tabs.setTabToolTip(self.tabs.addTab(page, title), tip)
        line = QHBoxLayout()
        line.addWidget(QLabel("Results"))
        line.addWidget(self._layers, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(line)
        layout.addWidget(self.tabs, 1)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setMinimumWidth(_WIDTH)

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """Leave the canvas most of a small screen."""
        return QSize(_WIDTH, super().sizeHint().height())

    def _connect(self) -> None:
        self._layers.activated.connect(self._on_chosen)
        self.tabs.currentChanged.connect(self._bind_keys)
        self.classify.classified.connect(self.review_layer)
        self.review.acted.connect(self._act)
        self.review.blinded.connect(self._blind)
        self.review.reader_changed.connect(self._read_as)
        for signal, callback in self._signals():
            signal.connect(callback)

    def _signals(self) -> list[tuple[Any, Callable[..., None]]]:
        events = self._viewer.layers.events
        # napari connects all but the last for every widget that has `reset_choices`, and for good.
        changes = (events.inserted, events.removed, events.reordered, events.renamed)
        return [
            *((signal, self.reset_choices) for signal in changes),
            (events.inserted, self._bind_new),
            (camera(self._viewer).events.zoom, self._show_captions),
        ]

    def _show_captions(self, _: Any = None) -> None:
        show_captions(self._viewer)

    # --- which cells ---

    def reset_choices(self, _: Any = None) -> None:
        """Offer the layers with results that there are now (napari calls this on every change)."""
        part_copies(self._viewer.layers)
        adopt_reopened(self._viewer)
        layers = cells_layers(self._viewer)
        if self.session is not None and self.session.layer in layers:
            self._list(layers)
            return
        ready = [layer for layer in layers if has_pixels(self._viewer, layer)]
        self.review_layer(ready[-1] if ready else None)

    def _list(self, layers: list[Layer]) -> None:
        """Show the layers with results, the reviewed one chosen."""
        self._layers.clear()
        for layer in layers:
            self._layers.addItem(layer.name, layer)
        self._layers.setEnabled(bool(layers))
        self._layers.setPlaceholderText("none yet")
        chosen = None if self.session is None else self.session.layer
        self._layers.setCurrentIndex(layers.index(chosen) if chosen in layers else -1)

    def _on_chosen(self, number: int) -> None:
        self.review_layer(self._layers.itemData(number))

    def review_layer(self, layer: Layer | None) -> None:
        """Review the cells of another layer, or none; its journal is read. That of the same layer goes on."""
        earlier = self.session
        self._leave_session()
        try:
            if layer is not None:
                reader = self.review.reader.text().strip() or default_reader()
                earlier = earlier if earlier is not None and earlier.layer is layer else None
                self.session = Session(self._viewer, layer, reader, earlier=earlier)
        except WbcError as error:
            show_error(str(error))
        finally:  # whatever is wrong with this layer: no page goes on with the one that was left
            self._show_session()
        if self.session is not None:
            if self.review.blind and not self.session.blind:
                self._blind(True)
            self._tell_restored(self.session)
        self._show_copies()
        self._bind_keys()
        self._show_captions()

    def _show_session(self) -> None:
        self._watch(True)
        for page in (self.review, self.gallery, self.report):
            page.set_session(self.session)
        self._list(cells_layers(self._viewer))

    def _leave_session(self) -> None:
        """Let go of the layer that is reviewed, and leave it as anybody may see it."""
        self._release_keys()
        self._watch(False)
        if self.session is not None:
            self.session.leave()
        self.session = None

    def _show_copies(self) -> None:
        """Let layers that were copied from one in a blind review show all again, once that has ended."""
        if self.session is not None and self.session.blind:
            return
        for layer in cells_layers(self._viewer):
            if kept_table(layer) is not None:
                show_class(layer)
                repaint(layer)

    def _tell_restored(self, session: Session) -> None:
        """Tell once of a layer that labels of an earlier session were found for it."""
        if session.restored and session.layer.unique_id != self._told:
            self._told = session.layer.unique_id
            show_info(
                f"{session.restored} reviewed cells were restored from {session.journal.path}."
            )
        elif session.others and session.layer.unique_id != self._told:
            self._told = session.layer.unique_id
            said = ", ".join(f"{reader} ({count})" for reader, count in session.others.items())
            show_info(
                f"These cells were reviewed by {said}; enter that name as reader to see the labels."
            )

    def _watch(self, watch: bool) -> None:
        """Follow deletions and additions in the layer that is reviewed."""
        if self.session is None:
            return
        events = self.session.layer.events
        # Pasting tells of no new data: shapes tell of features then, points of something to draw.
        for signal in (events.data, events.features, events.set_data):
            if watch:
                signal.connect(self._on_data)
            else:
                signal.disconnect(self._on_data)

    def _on_data(self, _: Any) -> None:
        session = self.session
        if session is None:
            return
        count = len(session.layer.data)
        if count == len(session.layer.features) and count != len(session.review.cell_ids):
            self.review_layer(session.layer)
            if session.row >= 0 and self.session is not None and self._reviewing():
                left = session.review.cell_ids[session.row] in self.session.review.cell_ids
                if not left and self.session.row >= 0:
                    self.session.go(self.session.row)

    # --- what buttons and keys do ---

    def _act(self, key: str) -> None:
        """Do what a key or button means: on the page Gallery for the cells that are selected there."""
        if self.tabs.currentWidget() is not self.gallery or not self.gallery.act(key):
            telling(lambda: self.review.act(key))

    def _blind(self, blind: bool) -> None:
        session = self.session
        if session is not None and blind:
            session.set_blind(secrets.randbelow(2**31))
            self._begin_queue(session)
        elif session is not None:
            session.set_blind(None)
            self._show_copies()
            self.review.order_queue()

    def _read_as(self, reader: str) -> None:
        session = self.session
        if session is None or reader.strip() == session.review.reader:
            return
        telling(lambda: session.read_as(reader))
        self.review.reader.setText(session.review.reader)  # as it was, where the new one is refused
        if session.review.reader == reader.strip():  # whose queue is another one
            self._begin_queue(session)

    def _begin_queue(self, session: Session) -> None:
        """Order the cells anew, and begin with the first, whichever was looked at before."""
        self.review.order_queue()
        if len(session.rows):
            session.go(int(session.rows[0]))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Take the keys of a review where no field of the dock wanted them."""
        key = _QT_KEYS.get(event.key())
        modifiers = event.modifiers()
        if event.key() == Qt.Key.Key_Z and modifiers & Qt.KeyboardModifier.ControlModifier:
            shift = modifiers & Qt.KeyboardModifier.ShiftModifier
            key = "Control-Shift-Z" if shift else "Control-Z"
        if key is None or not self._reviewing():
            super().keyPressEvent(event)
            return
        self._act(key)

    def _reviewing(self) -> bool:
        return self.session is not None and self.tabs.currentWidget() is not self.classify

    def _bind_keys(self, _: Any = None) -> None:
        """Bind the keys on the canvas while a page of the review is shown."""
        self._release_keys()
        session = self.session
        if session is None:
            return
        if not self._reviewing():
            session.tell_table()
            return
        if self.tabs.currentWidget() is self.review:  # not before: the view would move by itself
            self.review.begin()
        self._viewer.layers.selection.active = session.layer
        self._bind(self._viewer.layers)

    def _bind_new(self, event: Any) -> None:
        if self._bound:
            self._bind([event.value])

    def _bind(self, layers: Iterable[Layer]) -> None:
        """Bind the keys on layers of all kinds: 1 would delete points of another one that is selected."""
        assert self.session is not None
        actions = {key: partial(self._act, key) for key in keys.key_actions(self.session)}
        self._bound += keys.bind(layers, actions)

    def _release_keys(self) -> None:
        keys.release(self._bound)
        self._bound = []

    # --- closing ---

    def let_go(self) -> None:
        """Stop what is under way and let go of the viewer."""
        self._leave_session()
        self._show_copies()
        for page in (self.review, self.gallery, self.report):
            page.set_session(None)
        self.classify.let_go()
        for signal, callback in self._signals():
            signal.disconnect(callback)
