"""Weights out of a checkpoint of anyone's, without running anything that it holds."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from wbc_batch.errors import InputError, ModelError
from wbc_batch.paths import absence, is_file

__all__ = ["read_weights"]

# Where training scripts keep the weights among other things.
_INSIDE = ("state_dict", "model_state_dict", "model", "net", "weights", "model_state")
# What wrappers put before each name: DataParallel, torch.compile, Lightning and modules around the network.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or what `torch.save` wrote: a state dict, or a dict that holds one as
        ``state_dict``, ``model_state_dict`` or ``model``.

    Returns
    -------
    dict of str to Tensor
        By name, without the prefixes of wrappers such as ``module.``.

    Raises
    ------
    InputError
        If there is no such file.
    ModelError
        If it is damaged, holds more than weights, or none. A pickle that would run code is not opened.
    """
    if not is_file(path):
        raise InputError(absence(path, f"there is no file {path}"))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    weights = _state_dict(content, path)
    while prefix := next((p for p in _WRAPPERS if all(k.startswith(p) for k in weights)), ""):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    unfit = next((n for n, v in weights.items() if not _is_plain(v)), None)
    if unfit is not None:
        raise ModelError(
            f"{path} holds no usable weights: {unfit} is sparse, quantised or of an unusual number type; "
            "save the weights of the network as it was trained, with torch.save(model.state_dict(), FILE)"
        )
    broken = next((n for n, v in weights.items() if not torch.isfinite(v).all()), None)
    if broken is not None:
        raise ModelError(
            f"{path} holds no usable weights: {broken} has values that are NaN or infinite"
        )
    return weights


def _is_plain(value: Tensor) -> bool:
    """Tell a dense tensor of numbers that torch computes with."""
    return (
        value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested or value.is_complex())
        and (not value.is_floating_point() or value.dtype.itemsize > 1)
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        raise ModelError(f"{path} {_why_unread(error)}") from error


def _why_unread(error: Exception) -> str:
    # A letter that is no instruction of a pickle: this is a text.
    letter = re.search(r"Unsupported operand (\d+)", str(error))
    text = letter is not None and int(letter[1]) < 0x80
    if isinstance(error, UnpicklingError) and not text:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        return (
            f"was not opened, because it holds more than weights{what} and would run code; save "
            "the weights alone, with torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in str(error):
        return (
            "is a TorchScript program, which is not run; save the weights alone, with "
            "torch.save(model.state_dict(), FILE)"
        )
    return "is damaged or was not written by torch.save; copy it again, or save the weights again"


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{path} does not hold named weights; save them with torch.save(model.state_dict(), FILE)"
        )
    strange = next((k for k, v in content.items() if not isinstance(v, Tensor)), None)
    if strange is not None:
        raise ModelError(
            f"{path} holds more than weights: its entry {strange!r} is not a tensor; save the weights "
            "alone, with torch.save(model.state_dict(), FILE)"
        )
    return {str(name): value for name, value in content.items()}
