"""The canvas and the shapes on it: signed distances, smooth noise, scattered discs."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Canvas",
    "FloatImage",
    "Grid",
    "chain",
    "coverage",
    "discs",
    "ellipse",
    "lattice",
    "noise",
    "smooth_union",
    "warped",
]

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of a window lie, seen from the centre of what is drawn there.

    Attributes
    ----------
    x, y : ndarray of float32, shape (h, w)
        Position of each pixel in um.
    origin : tuple of float
        Column and row, in pixels of the window, where x = y = 0.
    pixels_per_um : float
    """

    x: FloatImage
    y: FloatImage
    origin: tuple[float, float]
    pixels_per_um: float


@dataclass(frozen=True, slots=True)
class Canvas:
    """Dye per pixel, and the slightly bent coordinates in which everything is drawn.

    Attributes
    ----------
    dyes : ndarray of float32, shape (H, W, 3)
        Amounts of the three dyes of a `Stain`.
    x, y : ndarray of float32, shape (H, W)
        Position of each pixel in um from the top left corner, smoothly bent so that no cell is a
        perfect ellipse.
    pixels_per_um : float
    """

    dyes: FloatImage
    x: FloatImage
    y: FloatImage
    pixels_per_um: float

    @classmethod
    def blank(
        cls, height: int, width: int, pixels_per_um: float, rng: np.random.Generator
    ) -> "Canvas":
        """Return an empty canvas of `height` by `width` pixels."""
        columns = np.arange(width, dtype=np.float32) / pixels_per_um
        rows = np.arange(height, dtype=np.float32) / pixels_per_um
        x, y = np.meshgrid(columns, rows)
        flat = Grid(x, y, (0.0, 0.0), pixels_per_um)
        bent = warped(flat, rng, grain=5.0, amount=0.35)
        return cls(np.zeros((height, width, 3), np.float32), bent.x, bent.y, pixels_per_um)

    def window(
        self, centre: tuple[float, float], reach: float
    ) -> tuple[tuple[slice, slice], Grid] | None:
        """Return the pixels within `reach` um of `centre` (x, y), or None if it lies outside."""
        scale = self.pixels_per_um
        height, width = self.x.shape
        left, right = (int((centre[0] + side * reach) * scale) for side in (-1, 1))
        top, bottom = (int((centre[1] + side * reach) * scale) for side in (-1, 1))
        left, right = max(left, 0), min(right + 1, width)
        top, bottom = max(top, 0), min(bottom + 1, height)
        if left >= right or top >= bottom:
            return None
        pixels = (slice(top, bottom), slice(left, right))
        origin = (centre[0] * scale - left, centre[1] * scale - top)
        return pixels, Grid(
            self.x[pixels] - np.float32(centre[0]),
            self.y[pixels] - np.float32(centre[1]),
            origin,
            scale,
        )


def noise(
    grid_shape: tuple[int, int], grain: float, pixels_per_um: float, rng: np.random.Generator
) -> FloatImage:
    """Return smooth noise of mean 0 and about unit spread, with blobs of about `grain` um."""
    height, width = grid_shape
    step = max(grain * pixels_per_um, 1.0)
    coarse = (int(np.ceil(height / step)) + 1, int(np.ceil(width / step)) + 1)
    values = rng.standard_normal(coarse, dtype=np.float32) * np.float32(1.3)
    smooth = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32)


def warped(grid: Grid, rng: np.random.Generator, grain: float, amount: float) -> Grid:
    """Return the grid with its coordinates bent by `amount` um over lengths of `grain` um."""
    scale = grid.pixels_per_um
    bend_x, bend_y = (noise(grid.x.shape, grain, scale, rng) for _ in range(2))
    strength = np.float32(amount / 2)
    return Grid(grid.x + strength * bend_x, grid.y + strength * bend_y, grid.origin, scale)


def ellipse(
    grid: Grid, centre: tuple[float, float], radii: tuple[float, float], angle: float
) -> FloatImage:
    """Return about the signed distance (um, negative inside) to an ellipse turned by `angle`."""
    dx, dy = grid.x - np.float32(centre[0]), grid.y - np.float32(centre[1])
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = (cosine * dx + sine * dy) / np.float32(radii[0])
    across = (cosine * dy - sine * dx) / np.float32(radii[1])
    return (cv2.magnitude(along, across) - 1) * np.float32(min(radii))


def chain(grid: Grid, points: NDArray[np.floating], radii: Sequence[float]) -> FloatImage:
    """Return about the signed distance to a rope through `points` (n, 2) with `radii` (n)."""
    distance = np.full(grid.x.shape, 1e3, np.float32)
    for (ax, ay), (bx, by), start, end in zip(
        points[:-1].tolist(), points[1:].tolist(), radii[:-1], radii[1:], strict=True
    ):
        px, py = grid.x - np.float32(ax), grid.y - np.float32(ay)
        ux, uy = np.float32(bx - ax), np.float32(by - ay)
        share = np.clip((px * ux + py * uy) / max(ux * ux + uy * uy, np.float32(1e-6)), 0, 1)
        away = cv2.magnitude(px - share * ux, py - share * uy)
        distance = np.minimum(
            distance, away - (np.float32(start) + share * np.float32(end - start))
        )
    return distance


def smooth_union(parts: Sequence[FloatImage], blend: float) -> FloatImage:
    """Join signed distances, rounding the joints over `blend` um (Quilez's polynomial minimum)."""
    joined = parts[0]
    for part in parts[1:]:
        overlap = np.maximum(blend - np.abs(joined - part), 0) / np.float32(blend)
        joined = np.minimum(joined, part) - overlap * overlap * np.float32(blend / 4)
    return joined


def coverage(distance: FloatImage, pixels_per_um: float, softness: float = 0.0) -> FloatImage:
    """Return how much of each pixel lies inside (0 to 1), with an edge `softness` um wide."""
    edge = np.float32(max(softness, 1.0 / pixels_per_um))
    return np.clip(np.float32(0.5) - distance / edge, 0, 1)


def lattice(
    radius: float, spacing: float, jitter: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return points (n, 2) that fill a disc of `radius` um evenly but not in rows."""
    across = np.arange(-radius, radius + spacing, spacing)
    rows = np.arange(-radius, radius + spacing, spacing * 0.866)
    x, y = np.meshgrid(across, rows)
    x = x + np.where(np.arange(len(rows)) % 2, spacing / 2, 0.0)[:, None]
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points = points + rng.uniform(-jitter, jitter, points.shape)
    return points[np.hypot(points[:, 0], points[:, 1]) < radius]


def discs(
    grid: Grid,
    points: NDArray[np.floating],
    radii: NDArray[np.floating],
    values: NDArray[np.floating],
) -> FloatImage:
    """Return a layer (0 to 1) with one disc per point (um); later discs cover earlier ones."""
    shift = 4
    unit = grid.pixels_per_um * (1 << shift)
    offset = np.asarray(grid.origin) * (1 << shift)
    centres = np.rint(points * unit + offset).astype(int).tolist()
    sizes = np.maximum(np.rint(radii * unit), 1).astype(int).tolist()
    greys = np.clip(values * 255, 0, 255).tolist()
    layer = np.zeros(grid.x.shape, np.uint8)
    for centre, size, grey in zip(centres, sizes, greys, strict=True):
        cv2.circle(layer, centre, size, grey, cv2.FILLED, cv2.LINE_AA, shift)
    return layer.astype(np.float32) / np.float32(255)
