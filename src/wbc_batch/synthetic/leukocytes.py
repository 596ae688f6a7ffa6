"""The five leukocytes, from what a morphologist would name: size, nucleus, cytoplasm, granules.

Every painter takes a `Grid` centred on the cell, its radius in um and a random generator, and
returns the cell's dyes (h, w, 3: purple, blue, eosin, see `Stain`) and its coverage (h, w).
"""

from collections.abc import Callable

import numpy as np

from wbc_batch.synthetic.anatomy import Chromatin, band, body_outline, layer, lobes, with_nucleus
from wbc_batch.synthetic.shapes import (
    FloatImage,
    Grid,
    coverage,
    discs,
    ellipse,
    lattice,
    noise,
    warped,
)

__all__ = ["PAINTERS", "REACTIVE_UM", "Painted", "Painter", "random_radius"]

Painted = tuple[FloatImage, FloatImage]
Painter = Callable[[Grid, float, np.random.Generator], Painted]

# Usual diameters on a smear in um, smallest and largest.
_DIAMETERS = {
    "basophil": (11.0, 13.5),
    "eosinophil": (12.3, 14.5),
    "lymphocyte": (8.2, 10.5),
    "monocyte": (14.0, 17.0),
    "neutrophil": (11.8, 14.0),
}

#: A lymphocyte of this radius (um) or more is a reactive one.
REACTIVE_UM = 5.3


def random_radius(label: str, rng: np.random.Generator) -> float:
    """Return a radius in um for the class; one lymphocyte in seven is large (reactive)."""
    radius = float(rng.uniform(*_DIAMETERS[label])) / 2
    if label == "lymphocyte" and rng.random() < 0.15:
        radius = float(rng.uniform(REACTIVE_UM, 6.5))
    return radius


def paint_neutrophil(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
    """Paint two to five lobes or a band in pale pink cytoplasm with fine granules."""
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 0.5)
    body = coverage(outline, scale, 0.2)
    if rng.random() < 0.25:
        nucleus = band(
            grid, rng.uniform(1.45, 1.85), rng.uniform(2.8, 3.4), rng.uniform(2.6, 4.0), rng
        )
    else:
        count = int(rng.choice([2, 3, 4, 5], p=[0.15, 0.4, 0.35, 0.1]))
        longest = {2: 2.8, 3: 2.1, 4: 1.8, 5: 1.55}[count]
        nucleus = lobes(grid, count, (longest * 0.8, longest), radius, rng)
    dust = 0.5 * noise(grid.x.shape, 0.25, scale, rng) + 0.4 * noise(grid.x.shape, 0.6, scale, rng)
    pale = rng.uniform(0.8, 1.3)
    dyes = layer((0.10 * pale, 0.0, 0.14 * pale), 1 + 0.35 * dust)
    points = lattice(radius * 0.95, 0.8, 0.4, rng)
    grains = discs(
        grid, points, rng.uniform(0.1, 0.22, len(points)), rng.uniform(0, 1, len(points)) ** 2
    )
    dyes += layer((0.32, 0.0, 0.10), grains * np.float32(rng.uniform(0.3, 1.0)))
    chromatin = Chromatin(rng.uniform(1.6, 1.95), grain=0.7, contrast=0.2, softness=0.15)
    dyes = with_nucleus(dyes, grid, outline, nucleus, chromatin, rng)
    return dyes * body[..., None], body


def paint_eosinophil(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
    """Paint two, at times three lobes in cytoplasm packed with coarse orange-red granules."""
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 0.5)
    body = coverage(outline, scale, 0.25)
    count = 2 if rng.random() < 0.8 else 3
    longest = 3.0 if count == 2 else 2.4
    nucleus = lobes(grid, count, (longest * 0.85, longest), radius, rng)
    points = rng.permutation(lattice(radius * 0.97, 0.72, 0.22, rng))
    grains = discs(
        grid, points, rng.uniform(0.24, 0.42, len(points)), rng.uniform(0.4, 1.0, len(points))
    )
    dyes = layer((0.06, 0.03, 0.46), np.ones_like(body))
    dyes += layer((0.11, 0.0, 0.66), grains * np.float32(rng.uniform(0.85, 1.15)))
    chromatin = Chromatin(rng.uniform(1.35, 1.7), grain=0.6, contrast=0.2, softness=0.2, eosin=0.08)
    dyes = with_nucleus(dyes, grid, outline, nucleus, chromatin, rng)
    return dyes * body[..., None], body


def paint_basophil(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
    """Paint dark blue-purple granules over the cytoplasm and over a pale, indistinct nucleus."""
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 0.6)
    body = coverage(outline, scale, 0.2)
    count = int(rng.choice([2, 3]))
    nucleus = lobes(grid, count, (2.1, 2.7), radius, rng)
    dyes = layer((0.42, 0.06, 0.06), 1 + 0.35 * noise(grid.x.shape, 1.2, scale, rng))
    chromatin = Chromatin(rng.uniform(0.95, 1.25), grain=1.0, contrast=0.15, softness=0.8)
    dyes = with_nucleus(dyes, grid, outline, nucleus, chromatin, rng)
    points = rng.permutation(lattice(radius * 1.0, rng.uniform(0.5, 0.66), 0.35, rng))
    points = points[rng.random(len(points)) < rng.uniform(0.7, 0.95)]
    shades = rng.uniform(0.65, 1.0, len(points))
    grains = discs(grid, points, rng.uniform(0.18, 0.46, len(points)), shades)
    # A granule at the rim bulges out of the cell; it is never cut off.
    cover = np.maximum(body, np.minimum(grains * 2, 1))
    dark = layer((1.75, 0.12, 0.0), grains * np.float32(rng.uniform(0.9, 1.1)))
    dyes = np.maximum(dyes * body[..., None], dark)
    return dyes, cover


def paint_lymphocyte(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
    """Paint a round, dense nucleus that nearly fills the cell, in a thin rim of light blue.

    The reactive ones, half as large again, have more and bluer cytoplasm.
    """
    scale = grid.pixels_per_um
    reactive = radius >= REACTIVE_UM
    outline = body_outline(grid, radius, rng, 0.9 if reactive else 0.4)
    body = coverage(outline, scale, 0.2)
    share = rng.uniform(0.66, 0.74) if reactive else rng.uniform(0.78, 0.9)
    long, short = radius * share, radius * share * rng.uniform(0.86, 1.0)
    away, toward = rng.uniform(0, 0.85) * (radius - long), rng.uniform(0, 2 * np.pi)
    nucleus = ellipse(
        warped(grid, rng, grain=3.0, amount=0.3),
        (away * np.cos(toward), away * np.sin(toward)),
        (long, short),
        rng.uniform(0, np.pi),
    )
    rim = np.exp(outline / np.float32(0.9))
    blue = rng.uniform(0.3, 0.42) * (1.25 if reactive else 1.0)
    dyes = layer((0.05, blue, 0.0), 0.6 + 0.6 * np.minimum(rim, 1))
    dyes *= (1 + 0.12 * noise(grid.x.shape, 0.5, scale, rng))[..., None]
    chromatin = Chromatin(rng.uniform(1.55, 1.9), grain=1.1, contrast=0.17, softness=0.15)
    dyes = with_nucleus(dyes, grid, outline, nucleus, chromatin, rng)
    return dyes * body[..., None], body


def paint_monocyte(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
    """Paint a lacy kidney, horseshoe or folded nucleus in much grey-blue, dusty cytoplasm."""
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 1.2)
    body = coverage(outline, scale, 0.25)
    horseshoe = rng.random() < 0.45
    thickness = radius * (rng.uniform(0.29, 0.34) if horseshoe else rng.uniform(0.36, 0.42))
    span = rng.uniform(3.0, 4.2) if horseshoe else rng.uniform(1.9, 2.6)
    nucleus = band(grid, thickness, radius * rng.uniform(0.36, 0.44), span, rng)
    dust = 0.5 * noise(grid.x.shape, 0.2, scale, rng) + 0.35 * noise(grid.x.shape, 0.9, scale, rng)
    dyes = layer((rng.uniform(0.08, 0.16), rng.uniform(0.2, 0.32), 0.03), 1 + 0.25 * dust)
    if rng.random() < 0.4:
        holes = int(rng.integers(2, 12))
        angles, reach = rng.uniform(0, 2 * np.pi, holes), radius * rng.uniform(0.45, 0.9, holes)
        points = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
        vacuoles = discs(grid, points, rng.uniform(0.3, 0.75, holes), rng.uniform(0.6, 0.95, holes))
        dyes *= (1 - vacuoles)[..., None]
    chromatin = Chromatin(rng.uniform(1.2, 1.5), grain=0.55, contrast=0.18, softness=0.25)
    dyes = with_nucleus(dyes, grid, outline, nucleus, chromatin, rng)
    return dyes * body[..., None], body


#: How each class is painted.
PAINTERS: dict[str, Painter] = {
    "basophil": paint_basophil,
    "eosinophil": paint_eosinophil,
    "lymphocyte": paint_lymphocyte,
    "monocyte": paint_monocyte,
    "neutrophil": paint_neutrophil,
}
