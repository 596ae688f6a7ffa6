"""What the classifier asks of a network, whatever its layers are."""

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """Features of an image, a linear head over them, and what lies between in training.

    A network gets images (N, 3, S, S) with values 0..1 and normalises them itself.

    Attributes
    ----------
    dropout : nn.Module
    head : nn.Module
        A linear layer, or a sequence that ends in one.
    """

    dropout: nn.Module
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, S, S), values 0..1, to features (N, F)."""
        raise NotImplementedError  # every network has its own

    def describe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to features (N, F), and to what tells a new kind of cell (N, G).

        The same, where a network knows nothing better: the last features forget what does not tell the
        classes apart.
        """
        features = self.features(x)
        return features, features

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, S, S), values 0..1, to logits (N, classes)."""
        return self.head(self.dropout(self.features(x)))
