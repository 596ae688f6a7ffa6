"""What a model runs on: device, backend and precision, chosen before anything is loaded."""

from dataclasses import dataclass

import torch

from wbc_batch.classifier import devices
from wbc_batch.classifier.backend import choose_backend
from wbc_batch.classifier.bundle import Bundle
from wbc_batch.errors import InputError

__all__ = ["PRECISIONS", "Runtime", "choose_runtime", "refuse_impossible", "try_model"]

#: Those of all backends.
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a model runs on.

    Attributes
    ----------
    device : torch.device
    backend : str
        One of `wbc_batch.classifier.backend.BACKENDS`.
    precision : str
        One of `PRECISIONS`.
    """

    device: torch.device
    backend: str
    precision: str


def choose_runtime(bundle: Bundle, device: str, precision: str, backend: str) -> Runtime:
    """Choose what a model runs on here; nothing is loaded.

    Parameters
    ----------
    bundle : Bundle
    device, precision, backend : str
        As `wbc_batch.Classifier.load` takes them.

    Raises
    ------
    InputError
        If one of them is unknown, or neither this machine nor the model has it.
    """
    chosen = devices.choose_device(device)
    refuse_impossible(bundle, device, precision, backend)
    if chosen.type == "cpu" and choose_backend(backend) == "openvino":
        from wbc_batch.classifier import openvino_backend

        return Runtime(chosen, "openvino", openvino_backend.choose_precision(precision))
    return Runtime(chosen, "torch", devices.choose_precision(precision, chosen))


def refuse_impossible(bundle: Bundle, device: str, precision: str, backend: str) -> None:
    """Refuse what no machine could do with a model; other machines may have what this one lacks.

    Parameters
    ----------
    bundle : Bundle
    device, precision, backend : str
        As `wbc_batch.Classifier.load` takes them.

    Raises
    ------
    InputError
    """
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"unknown precision {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if precision != "int8":
        return
    if backend == "torch" or device.startswith("cuda"):
        raise InputError(
            "torch does not support the precision 'int8'; use the backend openvino on the CPU, "
            "or another precision"
        )
    if not bundle.quantised:
        raise InputError(
            f"the model {bundle.name!r} has no int8 network; make one with wbc-batch model quantise, "
            "or use another precision"
        )


def try_model(bundle: Bundle, device: str, precision: str, backend: str) -> Runtime:
    """Make sure that a model can be used here with these options: read all of it, and keep nothing.

    Parameters
    ----------
    bundle : Bundle
    device, precision, backend : str
        As `wbc_batch.Classifier.load` takes them.

    Returns
    -------
    Runtime
        What it would run on.

    Raises
    ------
    InputError
        As `choose_runtime` does.
    ModelError
        If the weights are missing, damaged or do not fit.
    """
    runtime = choose_runtime(bundle, device, precision, backend)
    bundle.load()
    if runtime.precision == "int8":
        bundle.read_quantised()
    return runtime
