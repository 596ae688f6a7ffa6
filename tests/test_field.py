"""Finding the leukocytes of a field of view."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from wbc_batch.classifier.field import find_cells
from wbc_batch.synthetic import draw_field

benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "field.py"))
fields, matched = benchmark["fields"], benchmark["matched"]


def test_the_benchmark_says_which_folder_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["field.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no annotations/\*\.xml; name a folder with"):
        benchmark["main"]()
    monkeypatch.setattr("sys.argv", ["field.py", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        benchmark["main"]()


def test_the_cells_of_drawn_fields_of_any_stain_are_found_and_nothing_else():
    cells = hits = false = 0
    for seed in range(12):
        image, boxes, _ = draw_field(seed, leukocytes=3)
        found = find_cells(image)
        met = matched(found, boxes)
        cells, hits, false = cells + len(boxes), hits + met, false + len(found) - met
    assert hits >= 0.95 * cells
    assert false <= 1


def test_a_field_of_red_cells_and_platelets_holds_no_cell():
    for seed in range(4):
        assert find_cells(draw_field(seed, leukocytes=0)[0]).shape == (0, 4)


@pytest.mark.parametrize("zoom", [0.5, 3.0])
def test_magnification_does_not_matter(zoom):
    image, boxes, _ = draw_field(3, leukocytes=3)
    shape = (round(640 * zoom), round(480 * zoom))
    found = find_cells(cv2.resize(image, shape, interpolation=cv2.INTER_AREA))
    assert matched(found, boxes * zoom) == len(found) == 3


def test_boxes_lie_inside_the_field_in_reading_order():
    image, _, _ = draw_field(5, leukocytes=5)
    found = find_cells(image[40:, 30:])
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= [610, 440]).all()
    assert (found[:, 2:] > 0).all()
    assert found[:, 1].tolist() == sorted(found[:, 1].tolist())


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_holds_no_cell(value):
    assert find_cells(np.full((60, 80, 3), value, np.uint8)).shape == (0, 4)


def test_noise_holds_hardly_any_cell():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    assert len(find_cells(noise)) <= 1


@pytest.mark.realdata
def test_the_annotated_cells_of_real_fields_are_found(real_cells):
    folder = real_cells / "fields"
    if not folder.is_dir():
        pytest.skip(f"no annotated fields in {folder}")
    cells = hits = false = count = 0
    for _, image, boxes in fields(folder):
        found = find_cells(image)
        met = matched(found, boxes)
        cells, hits, false = cells + len(boxes), hits + met, false + len(found) - met
        count += 1
    assert count == 60
    assert hits / cells >= 0.95
    assert false / count <= 0.2
