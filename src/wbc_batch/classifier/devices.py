"""What torch can compute on, how exactly, and how it says that it cannot."""

import logging
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from wbc_batch.errors import InputError, WbcError

__all__ = [
    "BATCH_SIZES",
    "PRECISIONS",
    "choose_device",
    "choose_precision",
    "enough_memory",
    "faithful",
    "is_broken",
    "memory_is_short",
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
        if not memory_is_short(error):
            raise
        raise WbcError(
            f"{device} does not have enough memory for {what}; check what else is using it, "
            "or choose another device"
        ) from error


@contextmanager
def faithful(device: torch.device) -> Iterator[None]:
    """Keep CUDA from TF32 in the name of float32, and from adding in another order each time.

    The settings of torch belong to whoever uses it beside this: they come back in the end.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted: list[tuple[Any, str, Any]] = [
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    ]
    if hasattr(
        cudnn, "conv"
    ):  # since torch 2.9; where it is used, even to ask for allow_tf32 may fail
        wanted += [(part, "fp32_precision", "ieee") for part in (cudnn.conv, matmul)]
    else:
        wanted += [(part, "allow_tf32", False) for part in (cudnn, matmul)]
    found = [getattr(part, name) for part, name, _ in wanted]
    try:
        for part, name, value in wanted:
            setattr(part, name, value)
        yield
    finally:
        for (part, name, _), value in zip(wanted, found, strict=True):
            setattr(part, name, value)


def memory_is_short(error: RuntimeError) -> bool:
    """Tell whether it is a device's memory that something failed for."""
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(words in told for words in _SHORT)


def is_broken(error: Exception) -> bool:
    """Tell whether the GPU failed in a way that stays: nothing works on it in this process any more."""
    kind = getattr(torch, "AcceleratorError", ())  # since torch 2.8
    return isinstance(error, kind) and not memory_is_short(error)
