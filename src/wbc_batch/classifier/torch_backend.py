"""Runs a network with torch, on the CPU or a CUDA device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wbc_batch.classifier.architecture import Network
from wbc_batch.classifier.backend import Measure, as_they_are
from wbc_batch.classifier.devices import (
    BATCH_SIZES,
    PRECISIONS,
    enough_memory,
    faithful,
    memory_is_short,
)
from wbc_batch.errors import WbcError

__all__ = ["TorchBackend", "fold_normalisation"]


class TorchBackend:
    """A network, ready to run; see `wbc_batch.classifier.backend.Backend`.

    Every batch has the same size, the last one padded: so a cell gets the same result in whatever
    company it comes, to the last bit. Matrix libraries choose their order of additions by the shape.

    Parameters
    ----------
    network : Network
        In float32; taken over and changed: batch normalisation is folded into the convolutions.
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
        Of all but the head, which runs in float32.
    batch_size : int, optional
        Cells per batch; halved whenever the device runs out of memory.

    Raises
    ------
    WbcError
        If the network does not fit into the device's memory.
    """

    name = "torch"

    def __init__(
        self,
        network: Network,
        device: torch.device,
        precision: str,
        batch_size: int | None = None,
    ) -> None:
        self.device = str(device)
        self._device = device
        self.precision = precision
        self.batch_size = batch_size or BATCH_SIZES[device.type]
        self._dtype = PRECISIONS[precision]
        with enough_memory(device, "the model"):
            network = network.eval().requires_grad_(False).to(device)
            fold_normalisation(network)
            self._network = network.to(memory_format=torch.channels_last)
            for part in self._network.children():
                if part is not self._network.head:
                    part.to(self._dtype)

    def run(
        self, crops: NDArray[np.uint8], measure: Measure = as_they_are
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what tells a new kind of cell; see `wbc_batch.classifier.backend.Backend`.

        Raises
        ------
        WbcError
            If not even one cell fits into the device's memory.
        """
        logits, measured = [], []
        start = 0
        while start < len(crops):
            try:
                with faithful(self._device):
                    some = self._batch(crops[start : start + self.batch_size], measure)
            except RuntimeError as error:
                if not memory_is_short(error):
                    raise
                self._halve(error)
                continue
            logits.append(some[0])
            measured.append(some[1])
            start += self.batch_size
        return np.concatenate(logits), np.concatenate(measured)

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            told = str(error).partition("\n")[0][:120]  # cuDNN may mean something else
            raise WbcError(
                f"{self.device} does not have enough memory for one cell ({told})"
            ) from error
        self.batch_size //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _batch(
        self, crops: NDArray[np.uint8], measure: Measure
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(crops)
        if count < self.batch_size:
            filler = np.zeros((self.batch_size - count, *crops.shape[1:]), np.uint8)
            crops = np.concatenate([crops, filler])
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        # (N, H, W, 3) seen as (N, 3, H, W) already is channels_last.
        images = pixels.permute(0, 3, 1, 2).to(self._dtype).div_(255.0)
        features, traces = self._network.describe(images)
        logits = self._network.head(features.float())
        measured = measure(traces.float())
        return logits[:count].cpu().numpy(), measured[:count].cpu().numpy()


def fold_normalisation(network: nn.Module) -> None:
    """Let each convolution that batch normalisation follows do its work, too; in place, in float32.

    EfficientNet-Lite0 runs 1.6 times as fast by it. Only in sequences is it sure what follows what.
    """
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for place in range(len(sequence) - 1):
            layer, following = sequence[place], sequence[place + 1]
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                sequence[place] = fuse_conv_bn_eval(layer, following)
                sequence[place + 1] = nn.Identity()
