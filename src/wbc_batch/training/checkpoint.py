"""All that a training needs to go on as if it had never stopped."""

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.devices import enough_memory
from wbc_batch.errors import RunError, in_a_line
from wbc_batch.files import write_file
from wbc_batch.training.history import History
from wbc_batch.training.run_folder import CHECKPOINT

__all__ = ["State", "restore", "save"]

_PARTS = ("network", "average", "optimiser", "schedule", "scaler")


@dataclass
class State:
    """A training between two epochs.

    Attributes
    ----------
    network : Network
        What is trained.
    average : Network
        The moving average of its weights.
    optimiser, schedule, scaler
        Of torch; the scaler keeps gradients of half precision in range, and is idle otherwise.
    history : History
    best : dict of str to Tensor
        The averaged weights of the epoch to keep so far.
    """

    network: Network
    average: Network
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    history: History
    best: dict[str, Tensor] = field(default_factory=dict)


def save(state: State, output: Path) -> None:
    """Write ``checkpoint.pt``, wholly or not at all."""
    content: dict[str, Any] = {part: getattr(state, part).state_dict() for part in _PARTS}
    random = _random_states(_device(state))
    content |= {"history": state.history.rows, "best": state.best, "random": random}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(output / CHECKPOINT, buffer.getbuffer())


def restore(state: State, output: Path) -> bool:
    """Put a fresh training where its checkpoint was written; False if there is none.

    Raises
    ------
    RunError
        If the checkpoint is damaged or of another version of this package.
    """
    path = output / CHECKPOINT
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not content["scaler"]:  # an idle one's, of another device; a busy one refuses it
            content["scaler"] = state.scaler.state_dict()
        with enough_memory(_device(state), "the training"):
            for part in _PARTS:
                getattr(state, part).load_state_dict(content[part])
        state.history.go_on(content["history"])
        state.best = content["best"]
        _set_random_states(content["random"], _device(state))
    except FileNotFoundError:
        return False
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise RunError(
            f"{path} cannot be continued ({in_a_line(error)}); add --force to start the training over"
        ) from error
    return True


def _device(state: State) -> torch.device:
    return next(state.network.parameters()).device


def _random_states(device: torch.device) -> list[Tensor]:
    # CUDA is asked only where the training uses it: a driver that is too old would end one on the CPU.
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:  # else it began on the CPU
        torch.cuda.set_rng_state(states[1], device)
