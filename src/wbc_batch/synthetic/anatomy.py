"""What leukocytes are made of: outline, nucleus of lobes or a band, chromatin, layers of dye."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.synthetic.shapes import (
    FloatImage,
    Grid,
    chain,
    coverage,
    ellipse,
    noise,
    smooth_union,
    warped,
)

__all__ = ["Amounts", "Chromatin", "band", "body_outline", "layer", "lobes", "with_nucleus"]

#: Units of the three dyes, see `wbc_batch.synthetic.stain.Stain`.
Amounts = tuple[float, float, float]


def _turned(points: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def body_outline(grid: Grid, radius: float, rng: np.random.Generator, wobble: float) -> FloatImage:
    """Signed distance to the cell's outline: a circle with a few waves of about `wobble` um."""
    angle = cv2.phase(grid.x, grid.y)
    reach = np.full(grid.x.shape, radius, np.float32)
    for waves in range(2, 6):
        height = np.float32(rng.normal(0, wobble / waves))
        reach += height * np.cos(np.float32(waves) * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    return cv2.magnitude(grid.x, grid.y) - reach


def layer(amounts: Amounts, strength: NDArray[np.floating]) -> FloatImage:
    """Give each pixel some units of each dye."""
    return strength[..., None].astype(np.float32, copy=False) * np.asarray(amounts, np.float32)


def _laid_over(below: FloatImage, above: FloatImage, cover: FloatImage) -> FloatImage:
    return below + (above - below) * cover[..., None]


@dataclass(frozen=True, slots=True)
class Chromatin:
    """How a nucleus takes the stain: units of purple, `grain` and edge `softness` in um."""

    amount: float
    grain: float
    contrast: float
    softness: float
    eosin: float = 0.03


def with_nucleus(
    dyes: FloatImage,
    grid: Grid,
    outline: FloatImage,
    nucleus: FloatImage,
    chromatin: Chromatin,
    rng: np.random.Generator,
) -> FloatImage:
    """Lay the nucleus over the cytoplasm: clumped, darker at the edge, never outside the cell."""
    scale = grid.pixels_per_um
    inside = np.maximum(nucleus, outline + np.float32(0.3))
    clumps = noise(grid.x.shape, chromatin.grain, scale, rng)
    clumps += 0.6 * noise(grid.x.shape, chromatin.grain / 2, scale, rng)
    membrane = np.exp(-((inside / np.float32(0.35)) ** 2))
    shade = chromatin.amount * (1 + chromatin.contrast * np.tanh(clumps) + 0.12 * membrane)
    stained = layer((1.0, 0.02, chromatin.eosin), shade)
    return _laid_over(dyes, stained, coverage(inside, scale, chromatin.softness))


def lobes(
    grid: Grid, count: int, size: tuple[float, float], radius: float, rng: np.random.Generator
) -> FloatImage:
    """Signed distance to a nucleus of `count` lobes on a bent path, joined by thin bridges."""
    lengths = rng.uniform(*size, count)
    widths = lengths * rng.uniform(0.74, 0.95, count)
    # Lobes follow one another on a path that bends mostly one way (a C), at times both (an S).
    sense = np.where(rng.random(max(count - 1, 1)) < 0.8, 1.0, -1.0)
    turns = sense * rng.uniform(0.75, 1.3, len(sense))
    headings = np.cumsum(turns)
    points = np.zeros((count, 2))
    for i in range(1, count):
        step = lengths[i - 1] + lengths[i] + rng.uniform(-0.1, 0.8)
        points[i] = points[i - 1] + step * np.array(
            [np.cos(headings[i - 1]), np.sin(headings[i - 1])]
        )
    points = _turned(points - points.mean(axis=0), rng.uniform(0, 2 * np.pi))
    points *= min(1.0, (radius * 0.9 - lengths.max()) / max(np.hypot(*points.T).max(), 1e-6))
    points += rng.normal(0, 0.06 * radius, 2)
    bent = warped(grid, rng, grain=1.8, amount=0.32)
    along = np.asarray(np.gradient(points, axis=0))
    angles = np.arctan2(along[..., 1], along[..., 0]) + rng.normal(0, 0.5, count)
    parts = [
        ellipse(bent, (px, py), (length, width), angle)
        for (px, py), length, width, angle in zip(
            points.tolist(), lengths.tolist(), widths.tolist(), angles.tolist(), strict=True
        )
    ]
    bridges = chain(bent, points, [rng.uniform(0.3, 0.5)] * count)
    return smooth_union([*parts, bridges], blend=0.5)


def band(
    grid: Grid, thickness: float, bend: float, span: float, rng: np.random.Generator
) -> FloatImage:
    """Signed distance to a C `thickness` um in radius, along `span` rad of an arc of `bend` um."""
    angles = np.linspace(-span / 2, span / 2, 7)
    points = bend * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radii = thickness * (1 + 0.18 * np.abs(np.linspace(-1, 1, 7)) + rng.normal(0, 0.06, 7))
    points = _turned(points - points.mean(axis=0), rng.uniform(0, 2 * np.pi))
    return chain(warped(grid, rng, grain=2.2, amount=0.4), points, radii.tolist())
