"""Whether a model is whole, and runs."""

import numpy as np
import torch
from numpy.typing import NDArray

from wbc_batch.classifier import Bundle, Classifier
from wbc_batch.classifier.architecture import Network
from wbc_batch.errors import ModelError, in_a_line
from wbc_batch.synthetic import draw_cells

__all__ = ["check_result", "drawn_crops", "verify"]


def verify(model: str) -> Bundle:
    """Check the hashes of all files and that the weights fit, and run the model on a drawn cell.

    Parameters
    ----------
    model : str
        The name of a bundled model, or a bundle's directory.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If the bundle is missing, damaged, does not fit or gives no usable probabilities.
    """
    classifier = Classifier.load(model, device="cpu", precision="fp32")
    probabilities = classifier.predict_prepared(drawn_crops(classifier, 1)).probabilities
    if not np.isfinite(probabilities).all():
        raise ModelError(f"the model in {classifier.bundle.path} gives no usable probabilities")
    classifier.bundle.check_files()
    return classifier.bundle


def drawn_crops(classifier: Classifier, count: int) -> NDArray[np.uint8]:
    """Draw cells as the model sees them: uint8, shape (count, S, S, 3)."""
    images, _ = draw_cells(count, seed=5, size=240)
    return np.stack([classifier.prepare(image).pixels for image in images])


def check_result(network: Network, size: int, origin: str) -> None:
    """Run a network on a grey picture.

    Raises
    ------
    ModelError
        If it cannot work on pictures of that size, or its logits are no numbers.
    """
    try:
        with torch.inference_mode():
            logits = network(torch.full((1, 3, size, size), 0.5))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"the network in {origin} cannot process images of {size} x {size} pixels; give the size it was "
            f"trained with, using --size ({in_a_line(error)})"
        ) from error
    if not torch.isfinite(logits).all():
        raise ModelError(f"the network in {origin} gives results that are not numbers")
