"""Classify stained white blood cells in bulk.

The public names are loaded on first use, so that ``import wbc_batch`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wbc_batch.classifier import Classifier, Predictions
    from wbc_batch.run import RunSummary, classify_paths

__all__ = ["Classifier", "Predictions", "RunSummary", "__version__", "classify_paths"]

_HOMES = {
    "Classifier": "wbc_batch.classifier",
    "Predictions": "wbc_batch.classifier",
    "RunSummary": "wbc_batch.run",
    "classify_paths": "wbc_batch.run",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("wbc-napari")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
