"""Runs a network with torch, on the CPU or a CUDA device."""

import logging
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.backend import Measure, as_they_are
from wbc_batch.errors import InputError, WbcError

__all__ = [
    "BATCH_SIZES",
    "PRECISIONS",
    "TorchBackend",
    "choose_device",
    "choose_precision",
    "enough_memory",
    "fold_normalisation",
    "is_broken",
]

_log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Cells that a kind of device computes at once, as long as its memory allows.
BATCH_SIZES = {"cpu": 64, "cuda": 512}

# How CUDA's libraries say that memory is short, where it is not torch that does.
_SHORT = (
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "STATUS_NOT_INITIALIZED",  # no room for the library itself
    "unable to find an engine",
    "CUDA error: out of memory",
)


def choose_device(device: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    InputError
        If the device is unknown, not there, or torch cannot use it.
    """
    if device == "auto":
        return _choose_freely()
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type == "mps":
        raise InputError("the device 'mps', Apple's GPU, is not supported; use auto or cpu")
    if chosen.type not in BATCH_SIZES:
        raise InputError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"the device {device!r} was not found: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use auto or cpu"
        )
    trouble = _why_useless(chosen) if chosen.type == "cuda" else None
    if trouble:
        raise InputError(f"the device {device!r} cannot be used: {trouble}, or use auto or cpu")
    return chosen


def _choose_freely() -> torch.device:
    gpu = torch.device("cuda")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    trouble = _why_useless(gpu)
    if trouble is None:
        return gpu
    _warn_once(f"the CPU is used, not the GPU: {trouble}")
    return torch.device("cpu")


@lru_cache
def _warn_once(sentence: str) -> None:
    _log.warning("%s", sentence)


def _why_useless(gpu: torch.device) -> str | None:
    """Say why torch cannot compute on a GPU that the driver lists, and what to do; None where it can."""
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} cannot start CUDA, most likely because the GPU's driver is too old "
            f"for CUDA {torch.version.cuda}; update the driver, install a torch for an older CUDA"
        )
    # Machine code runs on its own generation from its own version on, PTX ("compute") on all later ones.
    # ROCm lists its GPUs by other names, and says itself what it cannot do.
    names = torch.cuda.get_arch_list()
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name) for name in names]
    has = torch.cuda.get_device_capability(gpu)
    for match in built:
        if match is None:
            return None
        kind, major, minor = match[1], int(match[2]), int(match[3])
        if has >= (major, minor) and (kind == "compute" or has[0] == major):
            return None
    if not built:
        return None
    return (
        f"torch {torch.__version__} was not built for {torch.cuda.get_device_name(gpu)}, whose compute "
        f"capability is {has[0]}.{has[1]} (it was built for {', '.join(names)}); install a build of torch "
        "that supports it"
    )


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 where the device computes in it, fp16 on older GPUs, else fp32.

    Raises
    ------
    InputError
        If the precision is unknown.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if _gpu_has_bf16(device) else "fp16"
        return "bf16" if _cpu_has_bf16() else "fp32"
    if precision not in PRECISIONS:
        raise InputError(
            f"torch does not support the precision {precision!r} on this computer; use auto, "
            f"{', '.join(PRECISIONS)}"
            + ', or OpenVINO on the CPU: pip install "wbc-napari[openvino]"'
            * (precision == "int8")
        )
    x86 = platform.machine() in ("x86_64", "AMD64")
    if device.type == "cpu" and x86 and precision != "fp32" and not _cpu_has_bf16():
        _log.warning(
            "this CPU has no instructions for %s: torch emulates them, many times slower than fp32; "
            "leave --precision at auto for the fastest one",
            precision,
        )
    return precision


def _gpu_has_bf16(device: torch.device) -> bool:
    # torch.cuda.is_bf16_supported looks at the current device, which need not be this one.
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8


def _cpu_has_bf16() -> bool:
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


class TorchBackend:
    """A network, ready to run; see `wbc_batch.classifier.backend.Backend`.

    Every batch has the same size, the last one padded: so a cell gets the same result in whatever
    company it comes, to the last bit. Matrix libraries choose their order of additions by the shape.

    Parameters
    ----------
    network : Network
        In float32; taken over and changed: batch normalisation is folded into the convolutions.
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
        Of all but the head, which runs in float32.
    batch_size : int, optional
        Cells per batch; halved whenever the device runs out of memory.

    Raises
    ------
    WbcError
        If the network does not fit into the device's memory.
    """

    name = "torch"

    def __init__(
        self,
        network: Network,
        device: torch.device,
        precision: str,
        batch_size: int | None = None,
    ) -> None:
        self.device = str(device)
        self._device = device
        self.precision = precision
        self.batch_size = batch_size or BATCH_SIZES[device.type]
        self._dtype = PRECISIONS[precision]
        with enough_memory(device, "the model"):
            network = network.eval().requires_grad_(False).to(device)
            fold_normalisation(network)
            self._network = network.to(memory_format=torch.channels_last)
            for part in self._network.children():
                if part is not self._network.head:
                    part.to(self._dtype)

    def run(
        self, crops: NDArray[np.uint8], measure: Measure = as_they_are
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what tells a new kind of cell; see `wbc_batch.classifier.backend.Backend`.

        Raises
        ------
        WbcError
            If not even one cell fits into the device's memory.
        """
        logits, measured = [], []
        start = 0
        while start < len(crops):
            try:
                with _faithful(self._device):
                    some = self._batch(crops[start : start + self.batch_size], measure)
            except RuntimeError as error:
                if not _memory_is_short(error):
                    raise
                self._halve(error)
                continue
            logits.append(some[0])
            measured.append(some[1])
            start += self.batch_size
        return np.concatenate(logits), np.concatenate(measured)

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            told = str(error).partition("\n")[0][:120]  # cuDNN may mean something else
            raise WbcError(
                f"{self.device} does not have enough memory for one cell ({told})"
            ) from error
        self.batch_size //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _batch(
        self, crops: NDArray[np.uint8], measure: Measure
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(crops)
        if count < self.batch_size:
            filler = np.zeros((self.batch_size - count, *crops.shape[1:]), np.uint8)
            crops = np.concatenate([crops, filler])
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        # (N, H, W, 3) seen as (N, 3, H, W) already is channels_last.
        images = pixels.permute(0, 3, 1, 2).to(self._dtype).div_(255.0)
        features, traces = self._network.describe(images)
        logits = self._network.head(features.float())
        measured = measure(traces.float())
        return logits[:count].cpu().numpy(), measured[:count].cpu().numpy()


@contextmanager
def enough_memory(device: torch.device | str, what: str) -> Iterator[None]:
    """Say it in a sentence if the device runs out of memory for something, such as ``the model``.

    Raises
    ------
    WbcError
    """
    try:
        yield
    except RuntimeError as error:
        if not _memory_is_short(error):
            raise
        raise WbcError(
            f"{device} does not have enough memory for {what}; check what else is using it, "
            "or choose another device"
        ) from error


def _faithful(device: torch.device) -> AbstractContextManager[None]:
    """Keep cuDNN from TF32 in the name of float32, and from adding in another order each time."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _memory_is_short(error: RuntimeError) -> bool:
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(words in told for words in _SHORT)


def is_broken(error: Exception) -> bool:
    """Tell whether the GPU failed in a way that stays: nothing works on it in this process any more."""
    kind = getattr(torch, "AcceleratorError", ())  # since torch 2.8
    return isinstance(error, kind) and not _memory_is_short(error)


def fold_normalisation(network: nn.Module) -> None:
    """Let each convolution that batch normalisation follows do its work, too; in place, in float32.

    EfficientNet-Lite0 runs 1.6 times as fast by it. Only in sequences is it sure what follows what.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for place in range(len(sequence) - 1):
            layer, following = sequence[place], sequence[place + 1]
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                sequence[place] = fuse_conv_bn_eval(layer, following)
                sequence[place + 1] = nn.Identity()
