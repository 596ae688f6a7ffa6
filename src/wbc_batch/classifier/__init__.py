"""Crops in, predictions out: model, preprocessing and doubts. Knows no files but a model's, and no Dask.

`Classifier` is loaded on first use: reading a bundle's description or making a canonical crop needs no torch.
"""

import sys
from typing import TYPE_CHECKING, Any

from wbc_batch.classifier.bundle import Bundle, read_bundle
from wbc_batch.classifier.predictions import Predictions, Rejection
from wbc_batch.errors import ModelError, in_a_line

if TYPE_CHECKING:
    from wbc_batch.classifier.classifier import Classifier

# OpenVINO tells its maker of every import, and NNCF of every use, wherever this package is there. Nothing
# leaves a laboratory's machine unasked. None makes its import fail as if it were not installed, which both
# know how to do without; the type of sys.modules does not know that.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = ["Bundle", "Classifier", "Predictions", "Rejection", "read_bundle"]


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        try:
            from wbc_batch.classifier.classifier import Classifier
        # Of torch's libraries: on Windows perhaps where those of Qt were loaded before.
        except OSError as error:
            raise ModelError(
                f"torch cannot be loaded ({in_a_line(error)}); install it again; on Windows, also "
                "install Microsoft's Visual C++ Redistributable, or start napari by "
                'python -c "import torch, napari; napari.Viewer(); napari.run()"'
            ) from error
        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
