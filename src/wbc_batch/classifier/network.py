"""The networks that a bundle can name."""

from collections.abc import Callable, Sequence
from inspect import signature

from torch import Tensor, nn

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.efficientnet import EfficientNetLite0
from wbc_batch.classifier.torchvision_networks import TorchvisionNetwork
from wbc_batch.errors import ModelError, in_a_line

__all__ = ["ARCHITECTURES", "CompactResNet", "Network", "all_arguments", "build_network"]


class Block(nn.Module):
    """Two 3 x 3 convolutions with group normalisation around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(outputs // group_size, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(outputs // group_size, outputs)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.GroupNorm(outputs // group_size, outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.act(y + self.shortcut(x))


class CompactResNet(Network):
    """A small residual network with group normalisation.

    Group instead of batch normalisation (Wu and He 2018) because it keeps no statistics of the laboratory
    that it was trained on.

    Parameters
    ----------
    classes : int
        Number of outputs.
    widths : sequence of int
        Channels of each stage; multiples of `group_size`.
    blocks : sequence of int
        Residual blocks of each stage.
    group_size : int
        Channels that are normalised together.
    dropout : float
        Probability, before the last layer, in training only.
    """

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (64, 128, 256, 384),
        blocks: Sequence[int] = (1, 1, 1, 1),
        group_size: int = 16,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 7, 2, 3, bias=False),
            nn.GroupNorm(widths[0] // group_size, widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        stages: list[nn.Module] = []
        inputs = widths[0]
        for number, (outputs, depth) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(depth):
                stride = 2 if number > 0 and block == 0 else 1
                stages.append(Block(inputs, outputs, stride, group_size))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, S, S), values 0..1, to features (N, widths[-1])."""
        x = self.stages(self.stem((x - 0.5) / 0.25))
        return x.mean(dim=(2, 3))


# What torch raises for arguments that make no network, or one for which memory is too small.
_MISFITS = (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)

#: Architectures by the name that ``model.json`` gives.
ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "compact_resnet": CompactResNet,
    "efficientnet_lite0": EfficientNetLite0,
    "torchvision": TorchvisionNetwork,
}


def all_arguments(architecture: str, arguments: dict) -> dict:
    """Complete the arguments of an architecture by its defaults, so that a bundle outlives them.

    Raises
    ------
    ModelError
        If the architecture is unknown or does not take these arguments.
    """
    try:
        bound = signature(_architecture(architecture)).bind(0, **arguments)
    except TypeError as error:
        raise ModelError(
            f"the network architecture {architecture!r} does not take these arguments: {error}"
        ) from error
    bound.apply_defaults()
    complete = dict(bound.arguments)
    del complete["classes"]
    return complete


def build_network(architecture: str, classes: int, arguments: dict) -> Network:
    """Build an untrained network.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    classes : int
        Number of outputs.
    arguments : dict
        Keyword arguments of the architecture.

    Raises
    ------
    ModelError
        If the architecture is unknown or does not take these arguments.
    """
    build = _architecture(architecture)
    try:
        return build(classes, **arguments)
    except ModelError:  # says it all
        raise
    except _MISFITS as error:
        raise ModelError(
            f"the network architecture {architecture!r} does not take these arguments: {in_a_line(error)}"
        ) from error


def _architecture(name: str) -> Callable[..., Network]:
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"unknown network architecture {name!r}; this version knows {known}")
    return ARCHITECTURES[name]
