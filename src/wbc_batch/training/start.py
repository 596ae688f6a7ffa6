"""Where a training starts: which weights, and which of them may change."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from wbc_batch.classifier import Bundle, read_bundle
from wbc_batch.classifier.efficientnet import EfficientNetLite0
from wbc_batch.classifier.foreign_weights import read_weights
from wbc_batch.classifier.network import Network, all_arguments, build_network
from wbc_batch.classifier.novelty import NoveltyModel
from wbc_batch.classifier.torchvision_networks import TorchvisionNetwork
from wbc_batch.errors import InputError, ModelError, in_a_line
from wbc_batch.paths import is_file
from wbc_batch.schema import CLASSES
from wbc_batch.training.settings import Settings

__all__ = ["Start", "starting_network", "trained_parameters"]

# Fraction of the convolutions that "early" leaves free.
_LATE = 0.25


@dataclass(frozen=True)
class Start:
    """A network before its training.

    Attributes
    ----------
    network : Network
        On the CPU.
    described : str
        What its weights are, for people.
    bundle : Bundle or None
        The model that is trained on.
    novelty : NoveltyModel or None
        Of that model.
    """

    network: Network
    described: str
    bundle: Bundle | None = None
    novelty: NoveltyModel | None = None


def starting_network(settings: Settings) -> Start:
    """Build the network that a training starts from.

    Raises
    ------
    InputError
        If the architecture has no weights of an image network, or they are not installed.
    ModelError
        If what to start from cannot be read, or has another architecture.
    """
    network = build_network(settings.architecture, len(CLASSES), settings.arguments)
    if settings.start == "random":
        return Start(network, "random weights")
    if settings.start == "imagenet":
        return Start(network, _load_imagenet(network, settings.architecture))
    if is_file(settings.start):
        return Start(network, _load_file(network, Path(settings.start)))
    bundle = read_bundle(settings.start)
    if bundle.architecture != settings.architecture:
        raise ModelError(
            f"{bundle.path} holds a network {bundle.architecture!r}, but {settings.architecture!r} is to "
            "be trained; leave out --preset to train this model further"
        )
    wanted = all_arguments(settings.architecture, settings.arguments)
    if differing := _differences(all_arguments(bundle.architecture, bundle.arguments), wanted):
        raise ModelError(
            f"{bundle.path} holds a network {bundle.architecture!r} that differs from the one to be trained "
            f"({differing}); leave out --preset to train this model further"
        )
    network, novelty = bundle.load()
    network.train()
    return Start(network, f"{bundle.name}, SHA-256 {bundle.sha256}", bundle, novelty)


def _differences(own: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "; ".join(
        f"its {name} is {own.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if own.get(name) != value
    )


def _load_imagenet(network: Network, architecture: str) -> str:
    if not isinstance(network, EfficientNetLite0):
        raise InputError(
            f"there are no ImageNet weights for the network {architecture!r}; start from random weights, "
            "or use --preset lite"
        )
    return network.load_imagenet()


def _load_file(network: Network, path: Path) -> str:
    """Load the weights that torchvision gives for a network, but for those of its last layer."""
    if not isinstance(network, TorchvisionNetwork):
        raise ModelError(
            f"{path} is a file, but training starts from a model bundle, which is a directory; "
            "make one with wbc-batch model import, or use --preset seed with a file of torchvision's weights"
        )
    weights = read_weights(path)
    last = f"{network.head_name}."
    try:
        network.body.load_state_dict({k: v for k, v in weights.items() if not k.startswith(last)})
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not hold torchvision's weights of this network ({in_a_line(error)}); give the "
            "file that torchvision provides for it"
        ) from error
    return f"the weights in {path.name}, SHA-256 {sha256(path.read_bytes()).hexdigest()}"


def trained_parameters(
    network: Network, freeze: str
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Freeze what stays as it is, and return what is trained.

    Parameters
    ----------
    network : Network
        With a `head`; its layers are defined in the order in which they are run.
    freeze : {"none", "early", "body"}
        See `Settings`. The last stages are those of the last quarter of the convolutions.

    Returns
    -------
    body, head : list of nn.Parameter
        Those that change.
    """
    head = list(network.head.parameters())
    known = {id(p) for p in head}
    body = [p for p in network.parameters() if id(p) not in known]
    free = body[_first_free(network, body, freeze) :]
    for parameter in body[: len(body) - len(free)]:
        parameter.requires_grad_(False)
    return free, head


def _first_free(network: Network, body: list[nn.Parameter], freeze: str) -> int:
    if freeze != "early":
        return 0 if freeze == "none" else len(body)
    convolutions = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    first = convolutions[-max(1, round(_LATE * len(convolutions)))]
    return next(n for n, parameter in enumerate(body) if parameter is first)
