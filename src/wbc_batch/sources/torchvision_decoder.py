"""What decodes images in torchvision, without the rest of it, which takes each worker seconds to import."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["RGB", "UNCHANGED", "torchvision_decoder"]

#: Of torchvision's ImageReadMode.
UNCHANGED, RGB = 0, 3


@cache
def torchvision_decoder() -> Callable[[Any, int], Any]:
    """Load the decoder.

    Returns
    -------
    callable
        From a tensor of encoded bytes and a mode to a tensor of pixels, (C, H, W).

    Raises
    ------
    ImportError
        If torchvision has none.
    """
    import torch

    found = find_spec("torchvision")
    for folder in (found and found.submodule_search_locations) or ():
        for library in Path(folder).glob("image*"):
            if library.name.endswith(tuple(EXTENSION_SUFFIXES)):
                # What is loaded twice, here and by torchvision itself, is loaded once.
                with suppress(OSError, AttributeError, RuntimeError):
                    torch.ops.load_library(str(library))
                    return torch.ops.image.decode_image.default
    from torchvision.io import ImageReadMode, decode_image

    return lambda encoded, mode: decode_image(encoded, ImageReadMode(mode))
