"""Runs a network with OpenVINO on the CPU."""

import warnings

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.backend import Measure, as_they_are
from wbc_batch.classifier.torch_backend import fold_normalisation
from wbc_batch.errors import InputError, ModelError, in_a_line

__all__ = ["PRECISIONS", "OpenVinoBackend", "choose_precision", "translate"]

PRECISIONS = ("fp32", "bf16", "int8")
_BATCH = 16
# Of the translation. OpenVINO 2026.4 once gave a model with another number of inputs than one, in one of
# some hundred workers, for no reason that showed; it ended the whole run.
_TRIES = 3


def choose_precision(precision: str) -> str:
    """Resolve ``auto``: bf16 where this CPU computes in it, else fp32.

    Raises
    ------
    InputError
        If the precision is unknown, or this CPU does not have it.
    """
    native = _has_bf16(openvino.Core())
    if precision == "auto":
        return "bf16" if native else "fp32"
    if precision not in PRECISIONS:
        raise InputError(
            f"OpenVINO does not support the precision {precision!r} on this computer; use auto, "
            f"{', '.join(PRECISIONS)}, or the backend torch"
        )
    if precision == "bf16" and not native:
        raise InputError("this CPU does not support bf16; use fp32, or a computer that supports it")
    return precision


class OpenVinoBackend:
    """A network, ready to run; see `wbc_batch.classifier.backend.Backend`.

    It takes as many cores as torch may at that time. Every batch has the same size, the last one padded,
    as with `wbc_batch.classifier.torch_backend.TorchBackend`.

    Parameters
    ----------
    network : Network
        In float32; taken over and changed: batch normalisation is folded into the convolutions.
    size : int
        Side of its input, pixels.
    precision : {"fp32", "bf16", "int8"}
        Of all but the head, which torch runs in float32.
    quantised : tuple of bytes, optional
        With int8, what to run instead of the network's body: description and weights of what `translate`
        returns, quantised, as OpenVINO stores it.
    batch_size : int, optional
        Cells per batch.

    Raises
    ------
    ModelError
        If OpenVINO cannot run it.
    """

    name = "openvino"

    def __init__(
        self,
        network: Network,
        size: int,
        precision: str,
        quantised: tuple[bytes, bytes] | None = None,
        batch_size: int = _BATCH,
    ) -> None:
        self.device = "cpu"
        self.precision = precision
        self.batch_size = batch_size
        core = openvino.Core()
        try:
            body = core.read_model(*quantised) if quantised else translate(network, size)
            body.reshape([batch_size, size, size, 3])
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot run this network in {precision}; use the backend "
                f"torch, or another version of OpenVINO ({in_a_line(error)})"
            ) from error
        # Where layers are not quantised, what is between them is in the faster of the two as well.
        floating = "f32" if precision == "fp32" or not _has_bf16(core) else "bf16"
        options = {
            "INFERENCE_PRECISION_HINT": floating,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            # Else the workers of a machine would all sit on its first core.
            "ENABLE_CPU_PINNING": False,
        }
        self._request = core.compile_model(body, "CPU", options).create_infer_request()
        self._head = network.head.requires_grad_(False)

    def run(
        self, crops: NDArray[np.uint8], measure: Measure = as_they_are
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what tells a new kind of cell; see `wbc_batch.classifier.backend.Backend`."""
        starts = range(0, len(crops), self.batch_size)
        parts = [self._batch(crops[start : start + self.batch_size]) for start in starts]
        logits, traces = zip(*parts, strict=True)
        measured = measure(torch.from_numpy(np.concatenate(traces)))
        return np.concatenate(logits), measured.numpy()

    @torch.inference_mode()
    def _batch(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(crops)
        if count < self.batch_size:
            filler = np.zeros((self.batch_size - count, *crops.shape[1:]), np.uint8)
            crops = np.concatenate([crops, filler])
        found = self._request.infer([np.ascontiguousarray(crops)], share_inputs=True)
        logits = self._head(torch.from_numpy(found[0]))
        return logits[:count].numpy(), found[1][:count]


def _has_bf16(core: openvino.Core) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def translate(network: Network, size: int) -> openvino.Model:
    """Translate all of a network but its head.

    Parameters
    ----------
    network : Network
        In float32; taken over and changed.
    size : int
        Side of its input, pixels.

    Returns
    -------
    openvino.Model
        From uint8 crops (N, S, S, 3) to features (N, F) and traces (N, G).
    """
    network = network.eval().requires_grad_(False)
    fold_normalisation(network)
    for _ in range(_TRIES):
        body = _translated(network, size)
        if len(body.get_parameters()) == 1:
            break
    return body


def _translated(network: Network, size: int) -> openvino.Model:
    def body(crops: Tensor) -> tuple[Tensor, Tensor]:
        """All but the head, from pixels as they lie in memory."""
        return network.describe(crops.permute(0, 3, 1, 2).float() / 255.0)

    sample = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own future
        # A function, not a module, whose layers would all be made over first: the same model, sooner.
        traced = torch.jit.trace(body, sample, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=sample)
    # Not `openvino.convert_model`: it reports its use to the vendor, unasked.
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))
