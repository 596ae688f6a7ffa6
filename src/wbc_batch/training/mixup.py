"""Mixup (Zhang et al. 2018): cells that are partly another one, and count for both labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wbc_batch.training.loss import training_loss

__all__ = ["Blend", "random_blend"]


@dataclass(frozen=True)
class Blend:
    """How much of each cell of a batch is another one of it.

    Attributes
    ----------
    other : Tensor of int64, shape (N,)
    share : Tensor of float32, shape (N,)
        Of the cell itself, at least a half.
    """

    other: Tensor
    share: Tensor

    def of(self, images: Tensor) -> Tensor:
        """Blend pictures (N, 3, S, S)."""
        share = self.share[:, None, None, None]
        return share * images + (1.0 - share) * images[self.other]

    def loss(self, logits: Tensor, labels: Tensor, noisy: Tensor, smoothing: float) -> Tensor:
        """Return the mean loss of a batch whose pictures are blended; see `training_loss`."""
        own = training_loss(logits, labels, noisy, smoothing)
        others = training_loss(logits, labels[self.other], noisy[self.other], smoothing)
        return (self.share * own + (1.0 - self.share) * others).mean()


def random_blend(count: int, fraction: float, device: torch.device) -> Blend:
    """Choose what is blended with what: a fraction of some cells, by up to a half."""
    share = torch.where(torch.rand(count) < fraction, 0.5 + 0.5 * torch.rand(count), 1.0)
    return Blend(torch.randperm(count).to(device), share.to(device))
