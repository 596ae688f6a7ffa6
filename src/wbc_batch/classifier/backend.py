"""What runs a network on this machine, and what the classifier asks of it."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wbc_batch.errors import InputError, missing

__all__ = ["BACKENDS", "Backend", "Measure", "as_they_are", "choose_backend"]

#: What is made of the traces (N, G) of some cells, where they are: float32, one row for each cell.
Measure = Callable[[Tensor], Tensor]

#: What can run a network on the CPU; on CUDA devices torch always does.
BACKENDS = ("openvino", "torch")


class Backend(Protocol):
    """A network, ready to run.

    Attributes
    ----------
    name : str
        One of `BACKENDS`.
    device : str
        Such as ``cpu`` or ``cuda:0``.
    precision : str
        Such as ``bf16``.
    batch_size : int
        Cells that are computed at once.
    """

    name: str
    device: str
    precision: str
    batch_size: int

    def run(
        self, crops: NDArray[np.uint8], measure: Measure = ...
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what tells a new kind of cell.

        A cell gets the same result, to the last bit, in whatever company it comes.

        Parameters
        ----------
        crops : ndarray of uint8, shape (N, S, S, 3)
            At least one.
        measure : callable
            Such as `wbc_batch.classifier.novelty.NoveltyModel.scorer` gives. Default: `as_they_are`.

        Returns
        -------
        logits : ndarray of float32, shape (N, classes)
        measured : ndarray of float32, shape (N, ...)
            The measure of the traces; see `wbc_batch.classifier.architecture.Network.describe`.
        """


def as_they_are(traces: Tensor) -> Tensor:
    """Measure nothing."""
    return traces


def choose_backend(backend: str) -> str:
    """Resolve ``auto``: what runs a network on the CPU is OpenVINO where it is installed, else torch.

    Raises
    ------
    InputError
        If the backend is unknown or not installed.
    """
    installed = find_spec("openvino") is not None
    if backend == "auto":
        return "openvino" if installed else "torch"
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}; use auto, {' or '.join(BACKENDS)}")
    if backend == "openvino" and not installed:
        absent = missing("the backend openvino", "openvino")
        raise InputError(f"{absent}, or use the backend torch")
    return backend
