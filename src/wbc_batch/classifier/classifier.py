"""From images to predictions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.backend import Backend, as_they_are
from wbc_batch.classifier.bundle import Bundle, read_bundle
from wbc_batch.classifier.devices import enough_memory
from wbc_batch.classifier.images import as_rgb
from wbc_batch.classifier.novelty import NoveltyModel
from wbc_batch.classifier.predictions import Predictions, decide
from wbc_batch.classifier.preprocessing import CanonicalCrop, canonical_crop, stacked
from wbc_batch.classifier.runtime import choose_runtime
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.errors import ImageError

__all__ = ["Classifier"]


class Classifier:
    """A model bundle, loaded and ready.

    Make one with `Classifier.load`. It may be used from one thread at a time, but for `prepare`, which any
    number of threads may call.

    Attributes
    ----------
    bundle : Bundle
        The model's description.
    """

    def __init__(self, bundle: Bundle, backend: Backend, novelty: NoveltyModel | None) -> None:
        self.bundle = bundle
        self._backend = backend
        with enough_memory(backend.device, "the model"):
            self._score = novelty and novelty.scorer(backend.device)

    @classmethod
    def load(
        cls,
        model: str | Path = "default",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
    ) -> "Classifier":
        """Load a model bundle and verify it.

        Parameters
        ----------
        model : str or Path
            The name of a bundled model, or a bundle's directory.
        device : str
            ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision : str
            ``auto`` (bf16 or fp16 where the device computes in it), ``fp32``, ``bf16``, ``fp16`` (torch only)
            or ``int8`` (OpenVINO only, with models that were quantised).
        backend : str
            What runs the network on the CPU: ``auto`` (OpenVINO where it is installed), ``openvino`` or
            ``torch``. On CUDA devices it is torch.

        Returns
        -------
        Classifier

        Raises
        ------
        ModelError
            If the bundle is missing, damaged or does not fit.
        InputError
            If the device, precision or backend is unknown or not there.
        """
        bundle = read_bundle(model)
        runtime = choose_runtime(bundle, device, precision, backend)
        network, novelty = bundle.load()
        if runtime.backend == "openvino":
            return cls(bundle, _with_openvino(bundle, network, runtime.precision), novelty)
        return cls(bundle, TorchBackend(network, runtime.device, runtime.precision), novelty)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.bundle.sha256

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.classes

    @property
    def input_size(self) -> int:
        """Side of the canonical crop, pixels."""
        return self.bundle.preprocessing.size

    @property
    def device(self) -> str:
        """The device in use, such as ``cpu`` or ``cuda``."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """The precision in use."""
        return self._backend.precision

    @property
    def backend(self) -> str:
        """What runs the network: ``openvino`` or ``torch``."""
        return self._backend.name

    @property
    def batch_size(self) -> int:
        """Cells that are computed at once."""
        return self._backend.batch_size

    def prepare(self, image: NDArray) -> CanonicalCrop:
        """Make the canonical crop, and measure the nucleus.

        Parameters
        ----------
        image : ndarray
            One crop, see `wbc_batch.classifier.images.as_rgb` for shapes and types.

        Returns
        -------
        CanonicalCrop
            Its side is `input_size`.

        Raises
        ------
        ImageError
            If the image has no usable shape or type.
        """
        return canonical_crop(as_rgb(image), self.bundle.preprocessing)

    def predict_prepared(
        self, crops: NDArray[np.uint8], sizes: NDArray[np.float32] | None = None
    ) -> Predictions:
        """Classify canonical crops.

        Parameters
        ----------
        crops : ndarray of uint8, shape (N, S, S, 3)
            Pixels, as `prepare` makes them.
        sizes : ndarray of float32, shape (N,), optional
            Of the nuclei, as `prepare` measures them; NaN, and by default all, where they are not known.

        Returns
        -------
        Predictions

        Raises
        ------
        ImageError
            If they are of another type or shape.
        """
        size = self.input_size
        if crops.ndim != 4 or crops.shape[1:] != (size, size, 3) or crops.dtype != np.uint8:
            raise ImageError(
                f"canonical crops must be uint8 of shape (N, {size}, {size}, 3), not "
                f"{crops.dtype} of shape {crops.shape}"
            )
        logits = np.zeros((0, len(self.classes)), np.float32)
        measured = np.zeros(0, np.float32)
        if len(crops):
            logits, measured = self._backend.run(crops, self._score or as_they_are)
            if self.bundle.size_evidence is not None and sizes is not None:
                evidence = self.bundle.size_evidence.log_likelihood(sizes)
                logits = logits + self.bundle.temperature * evidence
        novelty = None if self._score is None else measured
        return decide(logits, novelty, self.bundle.temperature, self.bundle.rejection)

    def predict(
        self,
        images: Sequence[NDArray] | NDArray,
        progress: Callable[[int], None] | None = None,
    ) -> Predictions:
        """Classify crops.

        Parameters
        ----------
        images : sequence of ndarray, or ndarray of shape (N, H, W[, C])
            Crops of any size, one leukocyte each.
        progress : callable, optional
            Called with the number of cells done so far, after each batch.

        Returns
        -------
        Predictions
            In the order of `images`.

        Raises
        ------
        ImageError
            If an image has no usable shape or type; the message names its place.
        """
        if isinstance(images, np.ndarray) and (images.ndim != 4 and not _is_grey_stack(images)):
            raise ImageError(
                f"an array of crops must have the shape (N, H, W, 3), not {images.shape}; "
                "put a single image into a list"
            )
        parts = [
            self.predict_prepared(np.zeros((0, self.input_size, self.input_size, 3), np.uint8))
        ]
        with ThreadPoolExecutor(thread_name_prefix="prepare") as pool:
            done = 0
            while done < len(images):  # the batch size may fall on the way
                chunk = range(done, min(done + self.batch_size, len(images)))
                crops = list(pool.map(lambda i: self._prepare_numbered(i, images[i]), chunk))
                parts.append(self.predict_prepared(*stacked(crops)))
                done = chunk.stop
                if progress is not None:
                    progress(done)
        return _concatenate(parts)

    def _prepare_numbered(self, number: int, image: NDArray) -> CanonicalCrop:
        try:
            return self.prepare(image)
        except ImageError as error:
            raise ImageError(f"image {number}: {error}") from error


def _with_openvino(bundle: Bundle, network: Network, precision: str) -> Backend:
    from wbc_batch.classifier.openvino_backend import OpenVinoBackend

    quantised = bundle.read_quantised() if precision == "int8" else None
    return OpenVinoBackend(network, bundle.preprocessing.size, precision, quantised)


def _is_grey_stack(images: NDArray) -> bool:
    return images.ndim == 3 and images.shape[2] not in (1, 3, 4)


def _concatenate(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        *(np.concatenate(arrays) for arrays in zip(*map(_arrays, parts), strict=True))
    )


def _arrays(part: Predictions) -> tuple[NDArray, ...]:
    return (
        part.probabilities,
        part.predicted,
        part.label,
        part.confidence,
        part.margin,
        part.novelty,
    )
