"""The form of "Classify": which cells, by which model."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QSizePolicy, QWidget

from wbc_batch.classifier.predictions import Rejection
from wbc_napari.layers import CropSize, is_listed
from wbc_napari.marks import mark_of
from wbc_napari.runner import chosen_model, devices

if TYPE_CHECKING:
    import napari

__all__ = ["ClassifyForm"]

_STACK = "each step is a crop"
_PIXELS, _MICROMETRES = "px", "µm"


class ClassifyForm(QWidget):
    """Fields to choose image, marks, model, device and thresholds.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    changed : callable
        Called when another image or other marks are chosen.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", changed: Callable[[], None]) -> None:
        super().__init__()
        self._viewer = viewer
        self.image = ComboBox(
            label="Image",
            choices=self._images,
            nullable=False,
            tooltip="A stack of crops (N, Y, X, 3), one cell per step of the slider, or a field of view",
        )
        self.marks = ComboBox(
            label="Cells",
            choices=self._marks,
            nullable=False,
            tooltip="Where the cells are: each step of a stack, or the points, boxes or labels of a layer",
        )
        self.size = FloatSpinBox(
            value=100, min=1, max=10_000, step=5, tooltip="Side of the square around each point"
        )
        self.unit = ComboBox(
            choices=[_PIXELS, _MICROMETRES],
            tooltip="Pixels of the image, or micrometers by the scale of its layer",
        )
        self.model = FileEdit(
            label="Model",
            mode="d",
            nullable=True,
            tooltip="Folder of a model bundle (with model.json); leave empty for the bundled model",
        )
        self.model.choose_btn.text = "Choose…"
        self.model.choose_btn.tooltip = "Choose the folder of a model bundle"
        self.model.line_edit.native.setPlaceholderText("bundled")
        self.device = ComboBox(
            label="Device",
            choices=devices(),
            tooltip="Where the network runs; auto uses the GPU if torch can use one",
        )
        self.own_rule = CheckBox(
            text="own thresholds",
            tooltip="Use these limits, instead of those of the model, to leave cells unidentified",
        )
        self.confidence = FloatSpinBox(
            value=0.5,
            min=0,
            max=1,
            step=0.05,
            enabled=False,
            tooltip="Lowest confidence with which a cell gets a label",
        )
        self.novelty = FloatSpinBox(
            value=1.0,
            min=0,
            max=100,
            step=0.1,
            enabled=False,
            tooltip="Highest novelty with which a cell gets a label; 99 % of the cells the model was "
            "calibrated on are within 1",
        )
        self._size_row = _row(self.size, self.unit)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image.native)
        form.addRow("Cells", self.marks.native)
        form.addRow("Crop size", self._size_row)
        form.addRow("Model", self.model.native)
        form.addRow("Device", self.device.native)
        form.addRow("Reject", _row(self.own_rule, self.confidence, self.novelty))
        self._form = form
        for combo in (self.image, self.marks):
            combo.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            combo.changed.connect(lambda _: self._show_size())
            combo.changed.connect(lambda _: changed())
        self.own_rule.changed.connect(self._allow_thresholds)
        for limit in (self.confidence, self.novelty):  # Qt reserves room for the largest number
            limit.native.setMinimumWidth(92)
        self._show_size()

    def _images(self, _: Any = None) -> list[Image]:
        """Image layers to choose from: not the canonical crops that the plugin added."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        return [layer for layer in layers if not mark_of(layer) or is_listed(layer)]

    def _marks(self, _: Any = None) -> list[Any]:
        """Offer the stack itself, and the layers that can mark cells."""
        kinds = (Points, Shapes, Labels)
        layers = [layer for layer in self._viewer.layers if isinstance(layer, kinds)]
        own = [layer for layer in layers if not mark_of(layer) or mark_of(layer).get("own")]
        return [(_STACK, None), *((layer.name, layer) for layer in own)]

    def _show_size(self) -> None:
        self._form.setRowVisible(self._size_row, isinstance(self.marks.value, Points))

    def _allow_thresholds(self, own: bool) -> None:
        self.confidence.enabled = self.novelty.enabled = own

    def reset_choices(self) -> None:
        """Offer the layers that there are now."""
        self.image.reset_choices()
        self.marks.reset_choices()
        self._show_size()

    @property
    def crop_size(self) -> CropSize:
        """Side of a crop around a point."""
        return CropSize(self.size.value, self.unit.value == _MICROMETRES)

    @property
    def model_name(self) -> str:
        """``"default"`` or the folder of a bundle."""
        return chosen_model(self.model.value)

    @property
    def rejection(self) -> Rejection | None:
        """The thresholds, where the user has own ones."""
        if not self.own_rule.value:
            return None
        return Rejection(self.confidence.value, self.novelty.value)

    def set_enabled(self, enabled: bool) -> None:
        """Allow or forbid changes."""
        for part in (self.image, self.marks, self.size, self.unit, self.model, self.device):
            part.enabled = enabled
        self.own_rule.enabled = enabled
        self._allow_thresholds(enabled and self.own_rule.value)


def _row(*fields: Any) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for field in fields:
        layout.addWidget(field.native)
    return row
