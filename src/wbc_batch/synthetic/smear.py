"""A blood smear: red cells, platelets and leukocytes put on a canvas and photographed."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import InputError
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic.leukocytes import PAINTERS, Painter, random_radius
from wbc_batch.synthetic.shapes import Canvas, coverage, discs, ellipse, warped
from wbc_batch.synthetic.stain import Stain, photograph, random_stain, vary

__all__ = [
    "CROP_UM",
    "draw_cell",
    "draw_cells",
    "draw_field",
    "draw_many",
    "draw_stained",
    "paint_leukocyte",
    "paint_surroundings",
]

#: A crop shows about 36 um, as in PBC (360 px at 0.1 um).
CROP_UM = 36.0
_FIELD_PIXELS_PER_UM = 7.0
_RED_CELL_UM = 7.4

Disc = tuple[float, float, float]


def _paint_red_cell(canvas: Canvas, disc: Disc, rng: np.random.Generator) -> None:
    """Paint a pale disc, paler still in the middle."""
    x, y, radius = disc
    found = canvas.window((x, y), radius * 1.25)
    if found is None:
        return
    pixels, grid = found
    radii = (radius * rng.uniform(1.0, 1.08), radius * rng.uniform(0.86, 1.0))
    away = ellipse(grid, (0, 0), radii, rng.uniform(0, np.pi)) / np.float32(min(radii)) + 1
    pallor = np.float32(np.clip(rng.normal(0.65, 0.25), 0, 0.9))
    dimple = np.exp(-((away / np.float32(rng.uniform(0.35, 0.6))) ** 4))
    edge = coverage((away - 1) * np.float32(radius), canvas.pixels_per_um, 0.4)
    amount = edge * (1 - pallor * dimple)
    recipe = np.array([0.07, 0.10, 0.27], np.float32) * np.float32(rng.normal(1, 0.06))
    canvas.dyes[pixels] += amount[..., None] * recipe


def _paint_platelet(canvas: Canvas, disc: Disc, rng: np.random.Generator) -> None:
    """Paint a fragment of pale blue with a few purple granules."""
    x, y, radius = disc
    found = canvas.window((x, y), radius * 2)
    if found is None:
        return
    pixels, grid = found
    bent = warped(grid, rng, grain=0.9, amount=0.4)
    body = coverage(
        ellipse(bent, (0, 0), (radius, radius * rng.uniform(0.6, 0.95)), rng.uniform(0, np.pi)),
        canvas.pixels_per_um,
        0.3,
    )
    count = int(rng.integers(5, 12))
    points = rng.normal(0, radius * 0.4, (count, 2))
    grains = discs(grid, points, rng.uniform(0.15, 0.4, count), rng.uniform(0.5, 1, count))
    canvas.dyes[pixels] += body[..., None] * np.array([0.2, 0.1, 0.0], np.float32)
    canvas.dyes[pixels] += (body * grains)[..., None] * np.array([0.8, 0.05, 0.0], np.float32)


def paint_leukocyte(
    canvas: Canvas, painter: Painter, disc: Disc, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Paint one leukocyte over what is there; return its box (x, y, width, height) in pixels."""
    x, y, radius = disc
    found = canvas.window((x, y), radius * 1.2 + 1.5)
    assert found is not None
    pixels, grid = found
    dyes, body = painter(grid, radius, rng)
    # Red cells give way to a leukocyte on a smear; a trace is left where one lies under it.
    canvas.dyes[pixels] = canvas.dyes[pixels] * (1 - np.float32(0.93) * body)[..., None] + dyes
    left, top, width, height = cv2.boundingRect((body > 0.5).astype(np.uint8))
    return left + pixels[1].start, top + pixels[0].start, width, height


def _scatter_red_cells(
    size_um: tuple[float, float], taken: list[Disc], rng: np.random.Generator
) -> list[Disc]:
    """Drop red cells at random where there is room; in dense smears they overlap a little."""
    width, height = size_um
    crowding = rng.uniform(0.25, 0.75)
    wanted = int(crowding * (width + 8) * (height + 8) / (np.pi * (_RED_CELL_UM / 2) ** 2))
    overlap = rng.uniform(0.8, 1.05)
    cells: list[Disc] = []
    for x, y in rng.uniform((-4, -4), (width + 4, height + 4), (wanted * 3, 2)).tolist():
        if len(cells) == wanted:
            break
        radius = _RED_CELL_UM / 2 * float(rng.normal(1, 0.05))
        clear = all(np.hypot(x - a, y - b) > 0.94 * (radius + r) for a, b, r in taken)
        if clear and all(np.hypot(x - a, y - b) > overlap * (radius + r) for a, b, r in cells):
            cells.append((x, y, radius))
    return cells


def paint_surroundings(canvas: Canvas, taken: list[Disc], rng: np.random.Generator) -> None:
    """Paint red cells and now and then a platelet round the places already `taken`."""
    height, width = canvas.x.shape
    size_um = (width / canvas.pixels_per_um, height / canvas.pixels_per_um)
    red_cells = _scatter_red_cells(size_um, taken, rng)
    for disc in red_cells:
        _paint_red_cell(canvas, disc, rng)
    platelets = rng.poisson(0.35 * size_um[0] * size_um[1] / CROP_UM**2)
    for x, y in rng.uniform((0, 0), size_um, (platelets, 2)).tolist():
        radius = float(rng.uniform(0.9, 1.5))
        if all(np.hypot(x - a, y - b) > radius + r for a, b, r in [*taken, *red_cells]):
            _paint_platelet(canvas, (x, y, radius), rng)


def _check(label: str | None = None, **numbers: int) -> None:
    if label is not None and label not in CLASSES:
        raise InputError(
            f"Cells of the class {label!r} cannot be drawn; choose one of {', '.join(CLASSES)}."
        )
    for name, value in numbers.items():
        least = 16 if name in {"size", "width", "height"} else 0
        if value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}.")


def draw_stained(
    label: str, rng: np.random.Generator, stain: Stain, size: int = 360
) -> NDArray[np.uint8]:
    """Draw one crop with a given stain; see `draw_cell`."""
    pixels_per_um = size / (CROP_UM * rng.uniform(0.9, 1.06))
    canvas = Canvas.blank(size, size, pixels_per_um, rng)
    middle = size / pixels_per_um / 2
    x, y = (middle + rng.normal(0, 0.9, 2)).tolist()
    disc = (x, y, random_radius(label, rng))
    paint_surroundings(canvas, [disc], rng)
    paint_leukocyte(canvas, PAINTERS[label], disc, rng)
    return photograph(canvas, vary(stain, rng), rng)


def draw_cell(label: str, seed: int, size: int = 360) -> NDArray[np.uint8]:
    """Draw one synthetic leukocyte on a background of red cells.

    Stain, white balance, cell size, focus, noise, position and the red cells around vary with the
    seed; the same label, seed and size give the same picture.

    Parameters
    ----------
    label : str
        One of `wbc_batch.schema.CLASSES`.
    seed : int
        Not negative.
    size : int
        Side of the picture in pixels, at least 16; it always shows about 36 um.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        RGB.

    Raises
    ------
    InputError
        If there is no such class, or a number is out of range.
    """
    _check(label, seed=seed, size=size)
    rng = np.random.default_rng([seed, CLASSES.index(label)])
    return draw_stained(label, rng, random_stain(rng), size)


def draw_cells(n: int, seed: int = 0, size: int = 360) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw `n` synthetic cells, the classes as equal in number as they can be, in random order.

    Parameters
    ----------
    n : int
        Number of cells, 0 or more.
    seed : int
        Not negative.
    size : int
        Side of each picture in pixels, at least 16.

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
    return draw_many(
        lambda label, rng: draw_stained(label, rng, random_stain(rng), size), n, seed, size
    )


def draw_many(
    draw: Callable[[str, np.random.Generator], NDArray[np.uint8]], n: int, seed: int, size: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw cells one by one, by a class and a generator each; see `draw_cells`."""
    _check(n=n, seed=seed, size=size)
    order, *streams = np.random.default_rng(seed).spawn(n + 1)
    labels = [CLASSES[i % len(CLASSES)] for i in order.permutation(n).tolist()]
    images = np.empty((n, size, size, 3), np.uint8)
    for image, label, rng in zip(images, labels, streams, strict=True):
        image[:] = draw(label, rng)
    return images, labels


def draw_field(
    seed: int, width: int = 640, height: int = 480, leukocytes: int = 3
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Draw a synthetic field of view: a smear full of red cells with a few leukocytes.

    Parameters
    ----------
    seed : int
        Not negative.
    width, height : int
        Size in pixels, at least 16; 7 pixels are 1 um.
    leukocytes : int
        How many to draw; their boxes lie inside the field and apart from each other.

    Returns
    -------
    image : ndarray of uint8, shape (height, width, 3)
        RGB.
    boxes : ndarray of int, shape (n, 4)
        x, y, width, height of each leukocyte in pixels, from the top left corner.
    labels : list of str
        One per box.

    Raises
    ------
    InputError
        If a number is out of range, or the leukocytes do not fit into the field.
    """
    _check(seed=seed, width=width, height=height, leukocytes=leukocytes)
    rng = np.random.default_rng([seed, len(CLASSES)])
    canvas = Canvas.blank(height, width, _FIELD_PIXELS_PER_UM, rng)
    first = int(rng.integers(len(CLASSES)))
    labels = [CLASSES[(first + i) % len(CLASSES)] for i in range(leukocytes)]
    taken: list[Disc] = []
    for label in labels:
        taken.append(_free_place(canvas, random_radius(label, rng), taken, rng))
    paint_surroundings(canvas, taken, rng)
    boxes = [
        paint_leukocyte(canvas, PAINTERS[label], disc, rng)
        for label, disc in zip(labels, taken, strict=True)
    ]
    image = photograph(canvas, random_stain(rng), rng)
    return image, np.array(boxes, np.int64).reshape(-1, 4), labels


def _free_place(canvas: Canvas, radius: float, taken: list[Disc], rng: np.random.Generator) -> Disc:
    """Find a place for a leukocyte of `radius` um that lies inside and touches no other."""
    height, width = canvas.x.shape
    margin = radius * 1.2
    far = np.array([width, height]) / canvas.pixels_per_um - margin
    for x, y in rng.uniform(margin, np.maximum(far, margin), (2000, 2)).tolist():
        inside = margin <= min(far)
        if inside and all(np.hypot(x - a, y - b) > 1.6 * (radius + r) for a, b, r in taken):
            return x, y, radius
    raise InputError(
        f"A field of {width} x {height} pixels has no room for {len(taken) + 1} leukocytes;"
        " draw fewer or a larger field."
    )
