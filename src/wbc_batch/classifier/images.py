"""One rule for the pixels of an image, whatever door it came through."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError

__all__ = ["MIN_SIDE", "as_rgb"]

#: Images with a shorter side than this (pixels) hold no cell that could be told.
MIN_SIDE = 8

# Pixels that are computed with at once: what that takes in float32 is many times the image.
_BAND = 2**18


def as_rgb(image: NDArray) -> NDArray[np.uint8]:
    """Turn one image into 8-bit RGB.

    Grey becomes three equal channels; transparency is laid on white; 16-bit values are scaled so that the
    image's brightest value becomes 255 (the classifier balances brightness by the background anyway, so
    12-bit and 16-bit cameras come out alike).

    Parameters
    ----------
    image : ndarray
        ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``; uint8, uint16 or bool.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        The input itself where it has that form already.

    Raises
    ------
    ImageError
        If shape or dtype are none of these, or a side is shorter than `MIN_SIDE` pixels.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ImageError(
            f"an image must have the shape (H, W), (H, W, 3) or (H, W, 4), not {image.shape}"
        )
    if min(image.shape[:2]) < MIN_SIDE:
        raise ImageError(
            f"an image of {image.shape[1]} x {image.shape[0]} pixels is too small to show a cell "
            f"(at least {MIN_SIDE} x {MIN_SIDE} are needed)"
        )
    image = _as_uint8(image)
    if image.shape[2] == 4:
        image = _in_bands(_on_white, image, 3)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def _as_uint8(image: NDArray) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype == np.uint16:
        if image.shape[2] == 4:  # opacity has a scale of its own: the whole range
            colour = _as_uint8(image[..., :3])
            return np.dstack([colour, (image[..., 3] >> 8).astype(np.uint8)])
        scale = np.float32(255.0 / max(int(image.max()), 1))
        return _in_bands(lambda rows: np.rint(rows * scale).astype(np.uint8), image, image.shape[2])
    raise ImageError(
        f"images of type {image.dtype} are not accepted; convert them to uint8 (0..255) or uint16"
    )


def _in_bands(
    turn: Callable[[NDArray], NDArray[np.uint8]], image: NDArray, channels: int
) -> NDArray[np.uint8]:
    turned = np.empty((*image.shape[:2], channels), np.uint8)
    step = max(_BAND // image.shape[1], 1)
    for first in range(0, len(image), step):
        turned[first : first + step] = turn(image[first : first + step])
    return turned


def _on_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = image[..., 3:].astype(np.float32) / 255.0
    return np.rint(image[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
