"""What a training step minimises."""

import torch
from torch import Tensor, nn

__all__ = ["training_loss"]

# Exponent q of the generalised cross-entropy: 0 is cross-entropy, 1 forgives wrong labels most.
_GIVING_UP = 0.7


def training_loss(logits: Tensor, labels: Tensor, noisy: Tensor, smoothing: float) -> Tensor:
    """Loss of each cell: cross-entropy, and a forgiving one where the label may be wrong.

    Parameters
    ----------
    logits : Tensor of float32, shape (N, classes)
    labels : Tensor of int64, shape (N,)
    noisy : Tensor of bool, shape (N,)
        Cells that get the generalised cross-entropy (Zhang and Sabuncu 2018), whose gradient fades
        where the network is sure of another class.
    smoothing : float
        Label smoothing of the others.

    Returns
    -------
    Tensor of float32, shape (N,)
    """
    plain = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    given = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0].clamp_min(1e-6)
    forgiving = (1.0 - given**_GIVING_UP) / _GIVING_UP
    return torch.where(noisy, forgiving, plain)
