"""Leukocytes as laboratories that nobody has seen might show them, for training alone.

The textbook's cells (`leukocytes`) teach a network what it would learn anyway. What it lacks in a new
laboratory are looks: cytoplasm that takes the wrong dye, granules of another colour, over the nucleus or
hardly there, chromatin clumped or smooth, ragged outlines, red cells in any colour, a picture out of focus.
Here all that is drawn at random for each cell, far beyond what is usual (domain randomisation, Tobin et al.
2017). What the cells of a class have in common is what makes it: lobes, granules, how nucleus and cytoplasm
lie.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.synthetic.anatomy import (
    Amounts,
    Chromatin,
    band,
    body_outline,
    layer,
    lobes,
    with_nucleus,
)
from wbc_batch.synthetic.leukocytes import REACTIVE_UM, Painted, random_radius
from wbc_batch.synthetic.shapes import (
    Canvas,
    FloatImage,
    Grid,
    coverage,
    discs,
    ellipse,
    lattice,
    noise,
    warped,
)
from wbc_batch.synthetic.smear import CROP_UM, draw_many, paint_leukocyte, paint_surroundings
from wbc_batch.synthetic.stain import Stain, photograph, random_stain, vary

__all__ = ["draw_cells_elsewhere"]

# Units of the three dyes that a red cell takes as `paint_surroundings` draws it, together.
_RED_CELL_UNITS = 0.44
# Units of one eosinophil granule, from orange to the violet of an old or strong stain.
_ORANGE, _VIOLET = np.array((0.08, 0.0, 0.70)), np.array((0.50, 0.08, 0.35))


@dataclass(frozen=True, slots=True)
class _Look:
    """What one laboratory makes of all its cells, beyond dyes and lamp.

    Attributes
    ----------
    haze : tuple of float
        Units of the dyes that all cytoplasm takes.
    granules : float
        How strong granules are.
    eosin, basophil : tuple of float
        Units of the dyes of one granule.
    blue : float
        How strong blue cytoplasm is.
    chromatin, clumping, softness : float
        Factors of the nucleus's amount of dye, its contrast, and the softness of edges.
    wobble : float
        Factor of the outline's waves.
    over : float
        How strongly an eosinophil's granules lie over its nucleus.
    """

    haze: Amounts
    granules: float
    eosin: Amounts
    basophil: Amounts
    blue: float
    chromatin: float
    clumping: float
    softness: float
    wobble: float
    over: float


_Painter = Callable[[Grid, float, _Look, np.random.Generator], Painted]


def _random_look(rng: np.random.Generator) -> _Look:
    haze = rng.dirichlet((1.4, 0.8, 0.6)) * 0.75 * rng.random() ** 2
    eosin = (_ORANGE + (_VIOLET - _ORANGE) * rng.beta(0.7, 1.0)) * rng.lognormal(0, 0.2)
    return _Look(
        haze=_amounts(haze),
        granules=rng.lognormal(0, 0.35),
        eosin=_amounts(eosin),
        basophil=(1.75 * rng.uniform(0.55, 1.1), 0.12, rng.uniform(0, 0.35)),
        blue=rng.lognormal(0, 0.45),
        chromatin=rng.uniform(0.8, 1.1),
        clumping=rng.lognormal(0, 0.5),
        softness=rng.uniform(0.7, 2.5),
        wobble=rng.uniform(0.7, 2.1),
        over=rng.uniform(0, 0.8),
    )


def _random_stain(rng: np.random.Generator) -> Stain:
    """Return a stain whose dyes differ among each other more than is usual."""
    stain = random_stain(rng)
    dyes = stain.dyes * rng.lognormal(0, 0.11, (3, 3)) * rng.lognormal(0, 0.17, (3, 1))
    return replace(stain, dyes=dyes.astype(np.float32))


def _amounts(dyes: NDArray[np.float64]) -> Amounts:
    purple, blue, eosin = dyes.tolist()
    return purple, blue, eosin


def _hazy(dyes: FloatImage, look: _Look, grid: Grid, rng: np.random.Generator) -> FloatImage:
    clouds = 1 + np.float32(0.25) * noise(grid.x.shape, 1.5, grid.pixels_per_um, rng)
    return dyes + layer(look.haze, clouds)


def _dyed(
    dyes: FloatImage,
    grid: Grid,
    shapes: tuple[FloatImage, FloatImage],
    usual: Chromatin,
    look: _Look,
    rng: np.random.Generator,
) -> FloatImage:
    """Lay the nucleus over the cytoplasm; `shapes` are the cell's outline and the nucleus."""
    chromatin = Chromatin(
        usual.amount * look.chromatin,
        usual.grain * rng.uniform(0.7, 1.6),
        min(usual.contrast * look.clumping, 0.5),
        usual.softness * look.softness,
        usual.eosin + rng.uniform(0, 0.1),
    )
    return with_nucleus(dyes, grid, *shapes, chromatin, rng)


def _dent(
    grid: Grid, reach: float, radii: tuple[float, float], rng: np.random.Generator
) -> FloatImage:
    way = rng.uniform(0, 2 * np.pi)
    return ellipse(grid, (reach * np.cos(way), reach * np.sin(way)), radii, way)


def _blob(grid: Grid, radius: float, rough: float, rng: np.random.Generator) -> FloatImage:
    """Signed distance to a round or oval nucleus, dented at times."""
    bent = warped(grid, rng, grain=rng.uniform(2.0, 4.0), amount=rough)
    x, y = rng.normal(0, 0.08 * radius, 2).tolist()
    radii = (radius, radius * rng.uniform(0.72, 1.0))
    whole = ellipse(bent, (x, y), radii, rng.uniform(0, np.pi))
    if rng.random() < 0.5:
        reach = radius * rng.uniform(0.85, 1.35)
        whole = np.maximum(whole, -_dent(bent, reach, (radius * 0.55, radius * 0.3), rng))
    return whole


def _around(
    count: int, radius: float, reach: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Scatter points (n, 2) between two fractions of a radius."""
    angles, away = rng.uniform(0, 2 * np.pi, count), radius * rng.uniform(*reach, count)
    return np.stack([away * np.cos(angles), away * np.sin(angles)], axis=1)


def _paint_neutrophil(grid: Grid, radius: float, look: _Look, rng: np.random.Generator) -> Painted:
    scale, shape = grid.pixels_per_um, grid.x.shape
    outline = body_outline(grid, radius, rng, 0.5 * look.wobble)
    body = coverage(outline, scale, 0.2 * look.softness)
    if rng.random() < 0.3:
        thickness, bend = rng.uniform(1.3, 2.1), rng.uniform(2.4, 3.5)
        nucleus = band(grid, thickness, bend, rng.uniform(2.2, 4.6), rng)
    else:
        count = int(rng.choice([2, 3, 4, 5], p=[0.15, 0.4, 0.35, 0.1]))
        longest = {2: 2.8, 3: 2.2, 4: 1.9, 5: 1.65}[count] * rng.uniform(0.95, 1.15)
        nucleus = lobes(grid, count, (longest * 0.75, longest), radius, rng)
    dust = 0.5 * noise(shape, 0.25, scale, rng) + 0.4 * noise(shape, 0.6, scale, rng)
    pale = rng.uniform(0.6, 1.8)
    dyes = layer((0.10 * pale, 0.0, 0.14 * pale), 1 + 0.35 * dust)
    points = lattice(radius * 0.95, 0.8, 0.4, rng)
    sizes, shades = rng.uniform(0.1, 0.24, len(points)), rng.uniform(0, 1, len(points)) ** 2
    grains = discs(grid, points, sizes, shades)
    dyes += layer((0.32, 0.0, 0.10), grains * np.float32(rng.uniform(0.0, 1.1) * look.granules))
    dyes = _hazy(dyes, look, grid, rng)
    usual = Chromatin(rng.uniform(1.5, 1.95), grain=0.7, contrast=0.2, softness=0.15)
    dyes = _dyed(dyes, grid, (outline, nucleus), usual, look, rng)
    return dyes * body[..., None], body


def _eosinophil_nucleus(grid: Grid, radius: float, rng: np.random.Generator) -> FloatImage:
    if rng.random() < 0.15:
        thickness, bend = rng.uniform(1.6, 2.2), rng.uniform(2.4, 3.2)
        return band(grid, thickness, bend, rng.uniform(2.2, 3.6), rng)
    count = int(rng.choice([1, 2, 3], p=[0.08, 0.68, 0.24]))
    longest = {1: 3.4, 2: 3.0, 3: 2.4}[count]
    if count == 1:
        return _blob(grid, longest, 0.5, rng)
    return lobes(grid, count, (longest * 0.8, longest), radius, rng)


def _paint_eosinophil(grid: Grid, radius: float, look: _Look, rng: np.random.Generator) -> Painted:
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 0.5 * look.wobble)
    body = coverage(outline, scale, 0.25 * look.softness)
    nucleus = _eosinophil_nucleus(grid, radius, rng)
    points = rng.permutation(lattice(radius * 0.97, rng.uniform(0.62, 0.95), 0.22, rng))
    points = points[rng.random(len(points)) < rng.uniform(0.75, 1.0)]
    sizes, shades = rng.uniform(0.24, 0.46, len(points)), rng.uniform(0.4, 1.0, len(points))
    grains = discs(grid, points, sizes, shades)
    ground = np.asarray(look.eosin) * rng.uniform(0.3, 0.8) + (0.03, 0.03, 0.0)
    dyes = layer(_amounts(ground), np.ones_like(body))
    dyes += layer(look.eosin, grains * np.float32(rng.uniform(0.7, 1.3) * look.granules))
    dyes = _hazy(dyes, look, grid, rng)
    usual = Chromatin(rng.uniform(1.35, 1.8), grain=0.6, contrast=0.2, softness=0.2, eosin=0.08)
    dyes = _dyed(dyes, grid, (outline, nucleus), usual, look, rng)
    some = rng.permutation(points)[: len(points) // 3]
    sizes, shades = rng.uniform(0.2, 0.42, len(some)), rng.uniform(0.4, 1.0, len(some))
    above = discs(grid, some, sizes, shades) * np.float32(look.over)
    dyes += coverage(nucleus, scale, 0.3)[..., None] * layer(look.eosin, above)
    return dyes * body[..., None], body


def _paint_basophil(grid: Grid, radius: float, look: _Look, rng: np.random.Generator) -> Painted:
    scale = grid.pixels_per_um
    outline = body_outline(grid, radius, rng, 0.6 * look.wobble)
    body = coverage(outline, scale, 0.2 * look.softness)
    if rng.random() < 0.7:
        nucleus = lobes(grid, int(rng.choice([2, 3])), (2.1, 2.9), radius, rng)
    else:
        nucleus = _blob(grid, radius * rng.uniform(0.6, 0.8), 0.6, rng)
    ground = rng.uniform(0.3, 1.1)
    clouds = 1 + 0.35 * noise(grid.x.shape, 1.2, scale, rng)
    dyes = _hazy(layer((0.5 * ground, 0.08 * ground, 0.08), clouds), look, grid, rng)
    usual = Chromatin(rng.uniform(0.95, 1.6), grain=1.0, contrast=0.15, softness=0.6)
    dyes = _dyed(dyes, grid, (outline, nucleus), usual, look, rng)
    points = rng.permutation(lattice(radius, rng.uniform(0.5, 0.8), 0.35, rng))
    points = points[rng.random(len(points)) < rng.uniform(0.35, 0.95)]
    sizes, shades = rng.uniform(0.18, 0.48, len(points)), rng.uniform(0.5, 1.0, len(points))
    grains = discs(grid, points, sizes, shades)
    # A granule at the rim bulges out of the cell.
    cover = np.maximum(body, np.minimum(grains * 2, 1))
    dark = layer(look.basophil, grains * np.float32(rng.uniform(0.8, 1.15)))
    return np.maximum(dyes * body[..., None], dark), cover


def _paint_lymphocyte(grid: Grid, radius: float, look: _Look, rng: np.random.Generator) -> Painted:
    scale = grid.pixels_per_um
    reactive = radius >= REACTIVE_UM
    outline = body_outline(grid, radius, rng, (0.9 if reactive else 0.4) * look.wobble)
    body = coverage(outline, scale, 0.2 * look.softness)
    share = rng.uniform(0.64, 0.78) if reactive else rng.uniform(0.76, 1.0)
    long, short = radius * share, radius * share * rng.uniform(0.82, 1.0)
    away, toward = rng.uniform(0, 0.85) * (radius - long), rng.uniform(0, 2 * np.pi)
    bent = warped(grid, rng, grain=3.0, amount=rng.uniform(0.2, 0.9))
    centre = (away * np.cos(toward), away * np.sin(toward))
    nucleus = ellipse(bent, centre, (long, short), rng.uniform(0, np.pi))
    if rng.random() < 0.25:
        dent = _dent(bent, long * rng.uniform(1.05, 1.3), (long * 0.4, long * 0.22), rng)
        nucleus = np.maximum(nucleus, -dent)
    blue = rng.uniform(0.24, 0.42) * (1.25 if reactive else 1.0) * look.blue
    rim = np.minimum(np.exp(outline / np.float32(0.9)), 1)
    dyes = layer((rng.uniform(0.05, 0.17), blue, 0.0), 0.6 + 0.6 * rim)
    dyes *= (1 + 0.12 * noise(grid.x.shape, 0.5, scale, rng))[..., None]
    dyes = _hazy(dyes, look, grid, rng)
    if rng.random() < 0.15:  # a few azurophilic granules
        count = int(rng.integers(2, 8))
        sizes, shades = rng.uniform(0.15, 0.3, count), rng.uniform(0.5, 1, count)
        grains = discs(grid, _around(count, radius, (0.6, 0.95), rng), sizes, shades)
        dyes += layer((0.7, 0.0, 0.1), grains)
    usual = Chromatin(rng.uniform(1.5, 1.9), grain=1.1, contrast=0.17, softness=0.15)
    dyes = _dyed(dyes, grid, (outline, nucleus), usual, look, rng)
    return dyes * body[..., None], body


def _monocyte_nucleus(grid: Grid, radius: float, rng: np.random.Generator) -> FloatImage:
    kind = rng.random()
    if kind < 0.35:
        return _blob(grid, radius * rng.uniform(0.5, 0.74), 1.0, rng)
    bend = radius * rng.uniform(0.34, 0.46)
    if kind < 0.65:
        return band(grid, radius * rng.uniform(0.25, 0.34), bend, rng.uniform(3.0, 4.4), rng)
    return band(grid, radius * rng.uniform(0.34, 0.46), bend, rng.uniform(1.6, 2.8), rng)


def _paint_monocyte(grid: Grid, radius: float, look: _Look, rng: np.random.Generator) -> Painted:
    scale, shape = grid.pixels_per_um, grid.x.shape
    outline = body_outline(grid, radius, rng, 1.2 * min(look.wobble, 1.6))
    body = coverage(outline, scale, 0.25 * look.softness)
    nucleus = _monocyte_nucleus(grid, radius, rng)
    dust = 0.5 * noise(shape, 0.2, scale, rng) + 0.35 * noise(shape, 0.9, scale, rng)
    amounts = (rng.uniform(0.05, 0.2), rng.uniform(0.16, 0.34) * look.blue, 0.03)
    dyes = layer(amounts, 1 + np.float32(rng.uniform(0.1, 0.35)) * dust)
    dyes = _hazy(dyes, look, grid, rng)
    if rng.random() < 0.45:
        count = int(rng.integers(2, 14))
        sizes, shades = rng.uniform(0.3, 0.85, count), rng.uniform(0.6, 0.95, count)
        vacuoles = discs(grid, _around(count, radius, (0.35, 0.95), rng), sizes, shades)
        dyes *= (1 - vacuoles)[..., None]
    usual = Chromatin(rng.uniform(1.15, 1.65), grain=0.55, contrast=0.2, softness=0.25)
    dyes = _dyed(dyes, grid, (outline, nucleus), usual, look, rng)
    return dyes * body[..., None], body


_PAINTERS: dict[str, _Painter] = {
    "basophil": _paint_basophil,
    "eosinophil": _paint_eosinophil,
    "lymphocyte": _paint_lymphocyte,
    "monocyte": _paint_monocyte,
    "neutrophil": _paint_neutrophil,
}


def _draw(label: str, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    stain, look = _random_stain(rng), _random_look(rng)
    pixels_per_um = size / (CROP_UM * rng.uniform(0.8, 1.1))
    canvas = Canvas.blank(size, size, pixels_per_um, rng)
    x, y = (size / pixels_per_um / 2 + rng.normal(0, 0.9, 2)).tolist()
    disc = (x, y, random_radius(label, rng))
    paint_surroundings(canvas, [disc], rng)
    if rng.random() < 0.6:
        dyes = rng.dirichlet((0.8, 1.0, 1.6)) * rng.uniform(0.15, 0.9) / _RED_CELL_UNITS
        canvas.dyes[:] = canvas.dyes.sum(axis=2, keepdims=True) * dyes.astype(np.float32)

    def paint(grid: Grid, radius: float, rng: np.random.Generator) -> Painted:
        return _PAINTERS[label](grid, radius, look, rng)

    paint_leukocyte(canvas, paint, disc, rng)
    image = photograph(canvas, vary(stain, rng), rng)
    if rng.random() < 0.35:
        blur = rng.uniform(0.15, 0.45) * pixels_per_um
        image = cv2.GaussianBlur(image, (0, 0), blur).astype(np.uint8)
    return image


def draw_cells_elsewhere(
    n: int, seed: int = 0, size: int = 360
) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw `n` cells, each of another laboratory, the classes as equal in number as they can be.

    Parameters
    ----------
    n, seed, size
        As for `wbc_batch.synthetic.draw_cells`.

    Returns
    -------
    images : ndarray of uint8, shape (n, size, size, 3)
        RGB.
    labels : list of str
        One per image.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    return draw_many(lambda label, rng: _draw(label, rng, size), n, seed, size)
