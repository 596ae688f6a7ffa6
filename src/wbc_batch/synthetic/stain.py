"""From dye to picture: a stain, a lamp and a camera.

Everything is composed in optical density, so that a stronger stain, another hue or another white
balance changes the whole picture as it would on a slide (Beer-Lambert law: intensity = lamp *
exp(-density)).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.synthetic.shapes import Canvas, noise

__all__ = ["Stain", "photograph", "random_stain", "vary"]

# Optical densities in R, G, B of one unit of each dye; set beside the PBC and Raabin-WBC images.
_DYES = np.array([[0.62, 1.00, 0.24], [1.00, 0.70, 0.13], [0.13, 0.62, 0.70]], np.float32)
# A part of all laboratories sees chromatin as magenta rather than as violet.
_MAGENTA = np.array([[0.34, 1.00, 0.22], [0.80, 0.66, 0.10], [0.16, 0.66, 0.58]], np.float32)


@dataclass(frozen=True, slots=True)
class Stain:
    """How a slide was stained and lit.

    Attributes
    ----------
    dyes : ndarray of float32, shape (3, 3)
        Optical density in R, G, B (columns) of one unit of each dye (rows): the purple of the azure
        B-eosin Y complex (chromatin, basophil granules), azure blue (cytoplasm rich in RNA) and
        eosin (haemoglobin, eosinophil granules).
    lamp : ndarray of float32, shape (3,)
        Intensity of the empty background, 0 to 255.
    """

    dyes: NDArray[np.float32]
    lamp: NDArray[np.float32]


def random_stain(rng: np.random.Generator) -> Stain:
    """Return the stain and the white balance of one laboratory."""
    share = np.float32(rng.beta(0.8, 1.6))
    hue = rng.lognormal(0, 0.05, (3, 3))
    strength = rng.lognormal(0, 0.10, (3, 1)) * rng.lognormal(0, 0.10)
    dyes = ((1 - share) * _DYES + share * _MAGENTA) * hue * strength
    warmth = rng.uniform(-0.1, 1.1)
    tint = np.array([1.0, 1 - 0.11 * warmth, 1 - 0.20 * warmth]) * rng.normal(1, 0.012, 3)
    lamp = np.clip(rng.uniform(220, 254) * tint, 0, 255)
    return Stain(dyes.astype(np.float32), lamp.astype(np.float32))


def vary(stain: Stain, rng: np.random.Generator) -> Stain:
    """Return the stain as it is a few fields further on the same slide."""
    dyes = stain.dyes * rng.lognormal(0, 0.04, (3, 1)) * rng.lognormal(0, 0.05)
    lamp = np.clip(stain.lamp * rng.normal(1, 0.012), 0, 255)
    return replace(stain, dyes=dyes.astype(np.float32), lamp=lamp.astype(np.float32))


def photograph(canvas: Canvas, stain: Stain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light the canvas and record it: uneven lamp, focus, camera noise.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.
    """
    scale = canvas.pixels_per_um
    shape = canvas.x.shape
    density = cv2.transform(canvas.dyes, stain.dyes.T)
    shade = 1 + np.float32(rng.uniform(0, 0.015)) * noise(shape, 45.0, scale, rng)
    light = cv2.exp(-density) * stain.lamp * shade[..., None]
    # Mostly sharp; now and then visibly out of focus, but never so far that no one could name it.
    blur = rng.uniform(0.04, 0.11) if rng.random() < 0.8 else rng.uniform(0.12, 0.22)
    light = cv2.GaussianBlur(light, (0, 0), sigmaX=blur * scale)
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    light += grain * np.float32(rng.uniform(0.4, 2.0))
    return np.clip(light + 0.5, 0, 255).astype(np.uint8)
