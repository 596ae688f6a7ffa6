"""Classify crops step by step, for a thread that can be stopped between two steps. Knows no Qt."""

import ctypes
import logging
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import CanonicalCrop, stacked
from wbc_batch.errors import ImageError, WbcError
from wbc_batch.sources.ahead import run_ahead
from wbc_napari.crops import Crops, read_one
from wbc_napari.torchvision_loader import load_torchvision

if TYPE_CHECKING:
    from wbc_batch.classifier import Classifier, Predictions

__all__ = [
    "Found",
    "Plan",
    "Step",
    "chosen_model",
    "classify",
    "devices",
    "find_cells",
    "load_for",
    "saying_why",
]

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be classified, and how.

    Attributes
    ----------
    crops : Crops
    wanted : ndarray of int
        Their numbers, rising.
    model : str
        ``"default"`` or the folder of a bundle.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    rejection : Rejection or None
        When a cell is left unidentified; None for the model's own rule.
    """

    crops: Crops
    wanted: NDArray[np.intp]
    model: str = "default"
    device: str = "auto"
    rejection: Rejection | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a run.

    Attributes
    ----------
    model : dict
        Name, SHA-256 of the weights, device, rule of rejection and preprocessing of the model.
    rows : ndarray of int
        The crops of this batch; none where the model has just been loaded.
    predictions : Predictions or None
        Of those that are not in `errors`; None if there is none.
    errors : dict
        From the number of a crop to the reason why it could not be classified.
    """

    model: dict[str, Any]
    rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    predictions: "Predictions | None" = None
    errors: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Found:
    """The leukocytes of one field of view.

    Attributes
    ----------
    field : int
        Its number among those that are searched.
    boxes : ndarray of int64, shape (n, 4)
        x, y, width, height, pixels.
    error : str
        Why the field could not be searched; "" if it was.
    """

    field: int
    boxes: NDArray[np.int64]
    error: str = ""


def chosen_model(folder: Path | None) -> str:
    """Name the model that a user chose: ``"default"`` for none, else the folder, ``~`` written out.

    ``~`` of a user who is not known stays: there is no such model, as is said when it is loaded.
    """
    try:
        return "default" if folder is None else str(folder.expanduser())
    except RuntimeError:
        return str(folder)


def devices() -> list[str]:
    """Return the devices to offer: CUDA where there is a driver (asking torch takes seconds)."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ["auto", "cpu"]
    return ["auto", "cpu", "cuda"]


def load_for(plan: Plan) -> Iterator["Classifier"]:
    """Load a model and try it on the first crop, in one step.

    Raises
    ------
    ModelError
        If the bundle cannot be loaded.
    ImageError
        If the first crop cannot be prepared.
    """
    classifier = _load(plan)
    _, errors = _prepare(classifier, plan.crops, np.zeros(1, np.intp))
    if errors:
        raise ImageError(f"'{plan.crops.name}' cannot be classified: {errors[0]}.")
    yield classifier


def classify(plan: Plan) -> Iterator[Step]:
    """Classify crops, reading no more than two batches at a time.

    Yields
    ------
    Step
        One without rows when the model is loaded, then one for each batch.

    Raises
    ------
    ModelError
        If the bundle cannot be loaded.
    ImageError
        If no crop of the first batch can be classified: the type of the images is to blame then.
    """
    classifier = _load(plan)
    about = {
        "name": classifier.name,
        "sha256": classifier.sha256,
        "folder": plan.model,
        "device": classifier.device,
        "rejection": asdict(classifier.bundle.rejection),
        "preprocessing": asdict(classifier.bundle.preprocessing),
    }
    yield Step(about)
    batches = plan.crops.batches(plan.wanted)
    prepare = partial(_prepare, classifier, plan.crops)
    # One batch is read and prepared while the network computes the one before.
    prepared = zip(batches, run_ahead(prepare, batches, threads=1, ahead=1), strict=True)
    for number, (rows, (images, errors)) in enumerate(prepared):
        if number == 0 and not images:
            first = errors[int(rows[0])]
            raise ImageError(f"'{plan.crops.name}' cannot be classified: {first}.")
        predictions = classifier.predict_prepared(*stacked(images)) if images else None
        yield Step(about, rows, predictions, errors)


def find_cells(fields: Crops) -> Iterator[Found]:
    """Find the leukocytes of fields of view, one field after the other.

    A field that cannot be read has no boxes, and the reason.

    Raises
    ------
    ImageError
        In the end, if no field can be read, or they are of no usable type.
    """
    from wbc_batch.classifier import field as finder
    from wbc_batch.classifier.images import as_rgb

    errors = []
    for number in range(len(fields)):
        try:
            found = Found(number, finder.find_cells(as_rgb(read_one(fields, number))))
        except ImageError as error:
            found = Found(number, np.zeros((0, 4), np.int64), str(error))
            errors.append(found.error)
        yield found
    if len(errors) == len(fields):
        raise ImageError(f"'{fields.name}' cannot be searched for cells: {errors[0]}.")


def _load(plan: Plan) -> "Classifier":
    load_torchvision()
    from wbc_batch.classifier import Classifier  # torch: not before it is needed

    classifier = Classifier.load(plan.model, device=plan.device)
    if plan.rejection is not None:
        classifier.bundle = replace(classifier.bundle, rejection=plan.rejection)
    return classifier


def _prepare(
    classifier: "Classifier", crops: Crops, rows: NDArray[np.intp]
) -> tuple[list[CanonicalCrop], dict[int, str]]:
    images, errors = [], {}
    for row, image in zip(rows, crops.read(rows), strict=True):
        try:
            if isinstance(image, ImageError):
                raise image
            images.append(classifier.prepare(image))
        except ImageError as error:
            errors[int(row)] = str(error)
    return images, errors


def saying_why(steps: Iterator[T]) -> Generator[T, None, str]:
    """Pass on the steps of a run; return why it ended early, in one sentence, "" if it did not.

    A worker would end without a word, or show a traceback for what is the user's to mend, and it
    would not end at all on a RuntimeError, which it takes for its own deletion: CUDA without memory
    is one.
    """
    try:
        yield from steps
    except WbcError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user waits for a word
        _log.exception("the run ended early")
        return f"The run ended early: {error or type(error).__name__}"
    return ""
