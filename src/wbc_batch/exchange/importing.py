"""From a foreign checkpoint to a model bundle that gives the same numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from wbc_batch.classifier.bundle import Bundle, write_bundle
from wbc_batch.classifier.foreign_weights import read_weights
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import LARGEST, Preprocessing
from wbc_batch.classifier.torchvision_networks import TorchvisionNetwork
from wbc_batch.errors import InputError, ModelError
from wbc_batch.exchange.verify import check_result
from wbc_batch.files import refuse_existing
from wbc_batch.schema import CLASSES

__all__ = ["Foreign", "import_checkpoint"]

# Below, no network of torchvision leaves anything of a picture.
_SIZES = range(32, LARGEST + 1)


@dataclass(frozen=True)
class Foreign:
    """What a checkpoint does not say about itself.

    Attributes
    ----------
    architecture : str
        Torchvision's name of the network.
    classes : tuple of str
        In the order of the network's outputs: those of `wbc_batch.schema.CLASSES`, in any order.
    size : int
        Side of the pictures that the network was trained on, pixels.
    mean, std : tuple of float
        Of red, green and blue on the scale 0..1, as the training normalised them.
    name : str
        What to call the model.
    licence : str
        Of the weights.
    """

    architecture: str
    classes: tuple[str, ...]
    size: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    name: str = "imported"
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if sorted(self.classes) != sorted(CLASSES):
            raise InputError(
                f"the model's classes must be {', '.join(CLASSES)}, in the order of its outputs; "
                f"{_difference(self.classes)}"
            )
        if self.size not in _SIZES:
            raise InputError(
                f"images of {self.size} x {self.size} pixels are not possible; the size must be "
                f"{_SIZES.start} to {_SIZES.stop - 1}"
            )
        if not all(0 <= value <= 1 for value in self.mean) or not all(v <= 1 for v in self.std):
            raise InputError(
                "mean and standard deviation must be on the scale 0..1, where white is 1, but "
                f"{_listed(self.mean)} and {_listed(self.std)} are given; divide values of 0..255 by 255"
            )


def import_checkpoint(path: Path, foreign: Foreign, output: Path) -> Bundle:
    """Make a bundle of a checkpoint: float32 as it is, classes in our order, and no novelty score.

    Parameters
    ----------
    path : Path
        See `wbc_batch.classifier.foreign_weights.read_weights`. The head may be a sequence, such
        as dropout and the linear layer.
    foreign : Foreign
    output : Path
        Directory; must not be there yet, or be empty.

    Returns
    -------
    Bundle

    Raises
    ------
    InputError
        If the file is missing.
    ModelError
        If the checkpoint cannot be read safely or does not fit the architecture or the classes.
    RunError
        If `output` is there already or cannot be written.
    """
    refuse_existing(output)
    theirs = read_weights(path)
    network = TorchvisionNetwork(len(CLASSES), foreign.architecture, foreign.mean, foreign.std)
    weights = _renamed(theirs, network.head_name, path)
    _refuse_misfit(weights, network, foreign.architecture, path)
    order = [foreign.classes.index(name) for name in CLASSES]
    for part in ("head.weight", "head.bias"):
        weights[part] = weights[part][order]
    network.load_state_dict(weights)
    check_result(network.eval(), foreign.size, str(path))
    bundle = Bundle(
        name=foreign.name,
        architecture="torchvision",
        arguments={
            "name": foreign.architecture,
            "mean": list(foreign.mean),
            "std": list(foreign.std),
            "dropout": 0.0,
        },
        classes=CLASSES,
        preprocessing=Preprocessing(size=foreign.size, view="image"),
        temperature=1.0,
        novelty_scale=None,
        rejection=Rejection(),
        training={
            "imported_from": path.name,
            "imported_sha256": sha256(path.read_bytes()).hexdigest(),
            "class_order": list(foreign.classes),
        },
        licence=foreign.licence,
    )
    return write_bundle(output, bundle, weights, None, _card(bundle), exact=True)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _difference(classes: Sequence[str]) -> str:
    unknown = [c for c in classes if c not in CLASSES]
    missing = [c for c in CLASSES if c not in classes]
    if unknown:
        return f"{unknown[0]!r} is not one of them"
    return f"{missing[0]} is missing" if missing else "one of them is given twice"


def _renamed(theirs: dict[str, Tensor], head: str, path: Path) -> dict[str, Tensor]:
    """Give the weights the names that `TorchvisionNetwork` has for them.

    ``fc.1.weight`` is the head's, too: the linear layer of a sequence that was put in its place.
    """
    ours = re.compile(rf"{re.escape(head)}(?:\.\d+)?\.(weight|bias)")
    weights: dict[str, Tensor] = {}
    for name, value in theirs.items():
        found = ours.fullmatch(name)
        new = f"head.{found[1]}" if found else f"body.{name}"
        if new in weights:
            raise ModelError(
                f"{path} has several layers at {head}, but only one linear layer and dropout can be imported"
            )
        weights[new] = value.float() if value.is_floating_point() else value
    if "head.weight" in weights:
        weights.setdefault("head.bias", torch.zeros(weights["head.weight"].shape[:1]))
    return weights


def _refuse_misfit(
    weights: dict[str, Tensor], network: TorchvisionNetwork, architecture: str, path: Path
) -> None:
    expected = network.state_dict()
    # Old versions of torch counted no batches; the count is of no use after the training.
    for name, value in expected.items():
        if name.endswith(".num_batches_tracked"):
            weights.setdefault(name, value)
    there = {"head.": f"{network.head_name}.", "body.": ""}

    def named(name: str) -> str:
        return there[name[:5]] + name[5:]

    missing = [named(n) for n in expected if n not in weights]
    extra = [named(n) for n in weights if n not in expected]
    if missing or extra:
        parts = [
            f"{what} {_some(names)}"
            for what, names in (("lacks", missing), ("has", extra))
            if names
        ]
        raise ModelError(
            f"{path} does not hold a {architecture}: it {' and '.join(parts)}; "
            "give the network that it was trained as"
        )
    head = weights["head.weight"].shape
    if len(head) == 2 and head[0] != len(CLASSES):
        raise ModelError(f"{path} has {head[0]} outputs, but {len(CLASSES)} classes are given")
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ModelError(
                f"{path} does not hold a {architecture}: {named(name)} has the shape "
                f"{tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            )


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{rest}"


def _card(bundle: Bundle) -> str:
    return (
        f"# {bundle.name}\n\n"
        f"A {bundle.arguments['name']} (torchvision), imported from `{bundle.training['imported_from']}` "
        f"(SHA-256 `{bundle.training['imported_sha256']}`). It sees whole images, resized to "
        f"{bundle.preprocessing.size} pixels a side, in their own colors. Its confidence is not calibrated "
        "and it has no novelty score. License of the weights: "
        f"{bundle.licence}.\n\nNot evaluated here: `wbc-batch evaluate` writes this card.\n"
    )
