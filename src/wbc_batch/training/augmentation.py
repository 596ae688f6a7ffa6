"""What another laboratory would have done to the same cell: geometry, stain, lamp, focus, camera."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Augmentation", "augment"]

# Optical density of each grey value; black has one, too.
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1.0) / 256.0)
_FAINTEST = 1e-6
# Nearest and farthest edge of the window from the middle of the crop with its margin, in its sides: from just
# around the nucleus to everything.
_WINDOW = (0.23, 0.57)


@dataclass(frozen=True)
class Augmentation:
    """How strongly training crops are varied.

    Attributes
    ----------
    scale : float
        The cell is enlarged by a factor between ``1 / (1 + scale)`` and ``1 + scale``.
    shift : float
        Largest shift, as a fraction of the side.
    stain : float
        Standard deviation of the logarithm of the density gain of red and green; more for blue,
        where yellow light leaves little to measure.
    mixing : float
        Standard deviation of the cross-talk between the channels' densities: turns the hue of the stain.
    fading : float
        Fraction of the crops whose hue is taken away by a random share: shape and texture must do.
    contrast : float
        Standard deviation of the logarithm of the exponent that each channel's density gets: colours
        cytoplasm otherwise than the nucleus.
    shading : float
        Standard deviation of what is added to the logarithm of the brightness, per channel.
    blur : float
        Largest standard deviation of the blur, pixels.
    noise : float
        Largest standard deviation of the camera's noise, grey values.
    window : float
        Fraction of the crops of which only a rectangle around the cell is left, as if the picture had been
        cut out closer.
    """

    scale: float = 0.22
    shift: float = 0.06
    stain: float = 0.22
    mixing: float = 0.12
    fading: float = 0.25
    contrast: float = 0.12
    shading: float = 0.04
    blur: float = 2.0
    noise: float = 6.0
    window: float = 0.0


def augment(
    crop: NDArray[np.uint8], size: int, settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Vary one crop.

    Parameters
    ----------
    crop : ndarray of uint8, shape (C, C, 3)
        A canonical crop with a margin around it: ``C > size``.
    size : int
        Side of the result, pixels.
    settings : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    image = _geometry(_window(crop, settings, rng), size, settings, rng)
    image = _focus(image, settings, rng)
    gain = np.exp(rng.normal(0.0, settings.stain, 3) * (1.0, 1.0, 1.6))
    mix = np.diag(gain) + rng.normal(0.0, settings.mixing, (3, 3)) * (1 - np.eye(3))
    if rng.random() < settings.fading:
        mix += rng.uniform(0.3, 1.0) * (np.full((3, 3), 1 / 3) * gain - mix)
    density = cv2.transform(cv2.LUT(image, _DENSITY), mix.astype(np.float32))
    exponent = np.exp(rng.normal(0.0, settings.contrast, 3)).astype(np.float32)
    density = cv2.exp(cv2.log(np.maximum(density, _FAINTEST)) * exponent)
    density += np.abs(rng.normal(0.0, settings.shading, 3)).astype(np.float32)
    result = 256.0 * cv2.exp(-density) - 1.0
    if rng.random() < 0.5:
        strength = np.float32(rng.uniform(0, settings.noise))
        result += strength * rng.standard_normal(result.shape, dtype=np.float32)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _window(
    crop: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut the picture closer: beyond some distance from the middle, on each side its own, all is white."""
    if rng.random() >= settings.window:
        return crop
    side = crop.shape[0]
    left, top, right, bottom = np.rint(rng.uniform(*_WINDOW, 4) * side).astype(int)
    middle = side // 2
    rows = slice(max(middle - top, 0), middle + bottom)
    columns = slice(max(middle - left, 0), middle + right)
    closer = np.full_like(crop, 255)
    closer[rows, columns] = crop[rows, columns]
    return closer


def _geometry(
    crop: NDArray[np.uint8], size: int, settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    side = crop.shape[0]
    zoom = (1.0 + settings.scale) ** rng.uniform(-1.0, 1.0)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    stretch = 1.0 + rng.uniform(-0.08, 0.08)
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[cosine * mirror * stretch, -sine], [sine * mirror * stretch, cosine]])
    middle = np.full(2, (side - 1) / 2)
    target = np.full(2, (size - 1) / 2) + rng.uniform(-1, 1, 2) * settings.shift * size
    matrix = np.column_stack([linear, target - linear @ middle])
    return cv2.warpAffine(
        crop,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )


def _focus(
    image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Blur, or lose resolution as a smaller sensor would."""
    kind = rng.random()
    if kind < 0.2:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, settings.blur))
    if kind < 0.5:
        size = image.shape[0]
        small = int(size * rng.uniform(0.22, 0.9))
        shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR)
    if kind < 0.65:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        return cv2.addWeighted(image, 1.6, soft, -0.6, 0)
    return image
