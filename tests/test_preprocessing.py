"""The canonical crop: the same cell, whatever picture it came in."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from wbc_batch.classifier.preprocessing import (
    REVISION,
    Preprocessing,
    canonical_crop,
    find_cell,
)
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cell, draw_cells

SETTINGS = Preprocessing(size=64)

# Mean red, green and blue of 4 x 4 parts of a canonical crop, as revision 2 makes it.
KNOWN_MEANS = [
    [255, 255, 255, 237, 229, 250, 231, 221, 249, 250, 248, 254],
    [237, 230, 251, 146, 106, 211, 126, 79, 201, 211, 192, 244],
    [237, 229, 250, 126, 79, 201, 146, 106, 211, 205, 183, 242],
    [255, 255, 255, 232, 222, 249, 219, 204, 246, 238, 230, 251],
]


def canonical(image: np.ndarray, settings: Preprocessing = SETTINGS) -> np.ndarray:
    return canonical_crop(image, settings).pixels.astype(float)


def difference(one: np.ndarray, other: np.ndarray, settings: Preprocessing = SETTINGS) -> float:
    return float(np.abs(canonical(one, settings) - canonical(other, settings)).mean())


@pytest.fixture(scope="module")
def cells() -> list[np.ndarray]:
    return [draw_cell(label, seed) for label in CLASSES for seed in (11, 12)]


def test_the_cell_in_the_middle_is_found(cells):
    for image in cells:
        region = find_cell(image)
        assert region.found
        assert np.hypot(region.x - 180, region.y - 180) < 50
        assert 40 < region.extent < 220


def test_the_size_of_the_picture_does_not_matter(cells):
    for image in cells:
        large = cv2.resize(image, (720, 720), interpolation=cv2.INTER_CUBIC)
        assert difference(image, large) < 6


def test_how_much_of_the_picture_the_cell_fills_does_not_matter(cells):
    changes = [difference(image, image[70:290, 70:290]) for image in cells]
    assert np.median(changes) < 8


def test_the_lamp_does_not_matter(cells):
    yellow = np.array([1.0, 0.93, 0.75])
    for image in cells:
        tinted = np.rint(image * yellow).astype(np.uint8)
        assert np.abs(tinted.astype(float) - image).mean() > 8
        assert difference(image, tinted) < 3


def test_the_strength_of_the_stain_matters_less(cells):
    for image in cells:
        region = find_cell(image)
        density = np.log(np.array(region.background) / np.maximum(image, 1.0))
        pale = np.array(region.background) * np.exp(-0.7 * np.maximum(density, 0))
        pale = np.rint(pale).astype(np.uint8)
        assert difference(image, pale) < 0.7 * difference(
            image, pale, replace(SETTINGS, balance=0.0)
        )


def test_the_lobes_of_a_nucleus_are_joined():
    image = np.full((200, 200, 3), 240, np.uint8)
    for x, y in ((80, 90), (115, 85), (105, 120)):
        cv2.circle(image, (x, y), 14, (90, 50, 130), -1)
    region = find_cell(image)
    assert region.extent > 60
    assert (region.x, region.y) == (pytest.approx(98, abs=6), pytest.approx(100, abs=6))


def test_a_platelet_and_red_cells_are_not_the_nucleus():
    image = np.full((200, 200, 3), 240, np.uint8)
    for x, y in ((30, 30), (170, 40), (40, 165), (160, 160)):
        cv2.circle(image, (x, y), 24, (205, 160, 165), -1)
    cv2.circle(image, (150, 100), 4, (120, 60, 150), -1)
    cv2.circle(image, (95, 105), 22, (90, 50, 130), -1)
    region = find_cell(image)
    assert (region.x, region.y) == (pytest.approx(95, abs=3), pytest.approx(105, abs=3))
    assert region.extent == pytest.approx(44, abs=6)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_nothing_is_taken_whole(value):
    image = np.full((50, 90, 3), value, np.uint8)
    crop = canonical_crop(image, SETTINGS)
    region = find_cell(image)
    assert not region.found
    assert region.extent == 50
    assert crop.pixels.shape == (64, 64, 3)
    assert np.isnan(crop.nucleus_size)


@pytest.mark.parametrize("shape", [(8, 8), (8, 1000), (1500, 8), (121, 240), (37, 53)])
def test_any_shape_gives_a_crop(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert canonical_crop(noise, SETTINGS).pixels.shape == (64, 64, 3)


def test_what_lies_outside_the_picture_becomes_background():
    images, _ = draw_cells(5, seed=2)
    for image in images:
        region = find_cell(image)
        corner = image[int(region.y - 5) :, int(region.x - 5) :]  # the cell at the upper left edge
        pixels = canonical(np.ascontiguousarray(corner))
        assert pixels[:4, :4].min() > 235


def test_stored_canonical_crops_would_still_be_made_so():
    """Where this fails on purpose, raise `REVISION`, so that packed stores are not read as they are."""
    image = np.full((110, 120, 3), (236, 226, 230), np.uint8)
    cv2.ellipse(image, (66, 52), (34, 30), 20.0, 0.0, 360.0, (196, 172, 214), -1, cv2.LINE_AA)
    cv2.ellipse(image, (60, 50), (20, 15), -30.0, 0.0, 360.0, (112, 62, 150), -1, cv2.LINE_AA)
    pixels = canonical(image, Preprocessing(size=64, context=1.9))
    means = pixels.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
    assert REVISION == 2
    np.testing.assert_allclose(means, np.array(KNOWN_MEANS).reshape(4, 4, 3), atol=2)


# --- the size of the nucleus ----------------------------------------------------------------------


def picture(nucleus: int, red_cell: int, strength: float = 1.0, side: int = 360) -> np.ndarray:
    """Draw a nucleus among red cells, some pale in the middle, overlapping or cut off, pixels."""
    image = np.full((side, side, 3), 240, np.float32)
    colour = np.array((205, 160, 165)) * strength + 240 * (1 - strength)
    for n, (x, y) in enumerate(
        ((0.1, 0.1), (0.3, 0.08), (0.38, 0.1), (0.85, 0.2), (1.0, 0.5), (0.2, 0.9))
    ):
        middle = (round(x * side), round(y * side))
        cv2.circle(image, middle, red_cell // 2, colour.tolist(), -1, cv2.LINE_AA)
        if n % 2:
            pale = (0.5 * colour + 120).tolist()
            cv2.circle(image, middle, red_cell // 6, pale, -1, cv2.LINE_AA)
    cv2.circle(image, (side // 2, side // 2), nucleus // 2, (90, 50, 130), -1, cv2.LINE_AA)
    return np.rint(image).astype(np.uint8)


@pytest.mark.parametrize(("nucleus", "red_cell"), [(96, 72), (110, 66), (140, 70), (180, 84)])
def test_the_nucleus_is_measured_in_red_cells(nucleus, red_cell):
    image = picture(nucleus, red_cell)
    found = canonical_crop(image, SETTINGS).nucleus_size
    assert found == pytest.approx(nucleus / red_cell, rel=0.12)
    larger = cv2.resize(image, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_CUBIC)
    assert canonical_crop(larger, SETTINGS).nucleus_size == pytest.approx(found, rel=0.08)
    yellow = np.rint(image * (1.0, 0.93, 0.75)).astype(np.uint8)
    assert canonical_crop(yellow, SETTINGS).nucleus_size == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(
    "image",
    [
        picture(110, 66, strength=0.0),
        picture(110, 66, strength=0.05),
        picture(110, 66)[115:245, 115:245],
        picture(110, 12),
    ],
    ids=["no red cells", "hardly stained", "cut out close", "platelets alone"],
)
def test_without_red_cells_no_size_is_made_up(image):
    assert find_cell(image).found
    assert np.isnan(canonical_crop(np.ascontiguousarray(image), SETTINGS).nucleus_size)


def test_drawn_lymphocytes_are_small_and_monocytes_large():
    sizes = {
        label: np.nanmedian(
            [canonical_crop(draw_cell(label, n), SETTINGS).nucleus_size for n in range(8)]
        )
        for label in ("lymphocyte", "monocyte")
    }
    assert sizes["lymphocyte"] < 0.85 * sizes["monocyte"]
