"""Classify a stack of crops step by step, for a thread that can be stopped between two steps."""

import ctypes
import logging
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wbc_batch.errors import ImageError, WbcError
from wbc_napari.layers import CropStack, cell_table

if TYPE_CHECKING:
    from wbc_batch.classifier import Classifier

__all__ = ["Step", "classify_stack", "devices", "load_for", "saying_why"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes
    ----------
    model : dict
        Name, SHA-256 of the weights, and device of the model.
    cells : DataFrame or None
        The rows of one batch (see `wbc_napari.layers.cell_table`); None: the model is loaded.
    """

    model: dict[str, str]
    cells: pd.DataFrame | None = None


def devices() -> list[str]:
    """Return the devices to offer: CUDA where there is a driver (asking torch takes seconds)."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ["auto", "cpu"]
    return ["auto", "cpu", "cuda"]


def load_for(stack: CropStack, model: str, device: str) -> Iterator["Classifier"]:
    """Load a model and try it on the first crop, in one step.

    Parameters
    ----------
    stack : CropStack
    model : str
        ``"default"`` or the folder of a bundle.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Yields
    ------
    Classifier
        Once.

    Raises
    ------
    ModelError
        If the bundle cannot be loaded.
    ImageError
        If the first crop cannot be prepared.
    """
    from wbc_batch.classifier import Classifier  # torch: not before it is needed

    classifier = Classifier.load(model, device=device)
    try:
        classifier.prepare(stack.read(0, 1)[0])
    except ImageError as error:
        raise ImageError(f"'{stack.name}' cannot be classified: {error}.") from error
    yield classifier


def classify_stack(stack: CropStack, model: str, device: str) -> Iterator[Step]:
    """Classify the crops of a stack, reading no more than a batch at a time.

    Parameters
    ----------
    stack : CropStack
    model, device : str
        See `load_for`.

    Yields
    ------
    Step
        One without cells when the model is loaded, then one for each of ``stack.spans()``.

    Raises
    ------
    ModelError
        If the bundle cannot be loaded.
    ImageError
        If no crop of the first batch can be classified: the type of the images is to blame then.
    """
    from wbc_batch.classifier import Classifier

    classifier = Classifier.load(model, device=device)
    about = {"name": classifier.name, "sha256": classifier.sha256, "device": classifier.device}
    yield Step(about)
    for start, stop in stack.spans():
        crops, errors = _prepare(classifier, stack.read(start, stop), start)
        if start == 0 and not crops:
            raise ImageError(f"'{stack.name}' cannot be classified: {errors[0]}.")
        predictions = classifier.predict_prepared(np.stack(crops)) if crops else None
        yield Step(about, cell_table(stack, (start, stop), predictions, errors))


def _prepare(
    classifier: "Classifier", images: NDArray, start: int
) -> tuple[list[NDArray[np.uint8]], dict[int, str]]:
    crops, errors = [], {}
    for index, image in enumerate(images, start):
        try:
            crops.append(classifier.prepare(image))
        except ImageError as error:
            errors[index] = str(error)
    return crops, errors


def saying_why(steps: Iterator[T]) -> Generator[T, None, str]:
    """Pass on the steps of a run; return why it ended early, in one sentence, "" if it did not.

    A worker would show a traceback for what is the user's to mend, and it would not end at all on a
    RuntimeError, which it takes for its own deletion: CUDA without memory is one.
    """
    try:
        yield from steps
    except WbcError as error:
        return str(error)
    except (OSError, RuntimeError) as error:
        _log.exception("the run ended early")
        return f"The run ended early: {error}"
    return ""
