"""Image networks of torchvision, as the classifier asks for them."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from wbc_batch.classifier.architecture import Network
from wbc_batch.errors import ModelError

__all__ = ["TorchvisionNetwork"]


class TorchvisionNetwork(Network):
    """A classification network of torchvision with a head of its own; without trained weights.

    What torchvision calls the last linear layer, whatever its name, becomes the `head`; the rest is `body`.

    Parameters
    ----------
    classes : int
        Number of outputs.
    name : str
        As `torchvision.models.get_model` takes it, such as ``resnet18``.
    mean, std : sequence of float
        Of red, green and blue, on the scale 0..1: what the network was trained to have taken off and to be
        divided by. 0 and 1 leave the colours as they are.
    dropout : float
        Probability, before the last layer, in training only.

    Attributes
    ----------
    head_name : str
        Torchvision's name of the head, such as ``fc`` or ``classifier.3``.

    Raises
    ------
    ModelError
        If torchvision has no such network, or it does not end in a linear layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: int,
        name: str = "resnet18",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(
                f"mean and standard deviation are three numbers each, the latter above 0; not {mean}, {std}"
            )
        self.body = _untrained(name)
        self.head_name, last = _last_linear(self.body, name)
        self.body.set_submodule(self.head_name, nn.Identity())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last.in_features, classes)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, S, S), values 0..1, to features (N, F)."""
        return self.body((x - self.mean.to(x.dtype)) / self.std.to(x.dtype))


def _untrained(name: str) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = get_close_matches(name, known, n=3) or ("resnet18", "mobilenet_v3_small")
        raise ModelError(
            f"torchvision has no network {name!r}; it has, for example, {', '.join(close)}"
        )
    # Some draw their first weights in seconds, or warn that they will; both is for nothing here.
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **extra)


def _last_linear(body: nn.Module, name: str) -> tuple[str, nn.Linear]:
    linear = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)]
    weighted = [n for n, m in body.named_modules() if next(m.parameters(False), None) is not None]
    if not linear or linear[-1][0] != weighted[-1]:
        raise ModelError(f"the network {name!r} does not end in a linear layer; choose another one")
    return linear[-1]
