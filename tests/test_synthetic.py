"""Drawn cells: repeatable, varied, and of five kinds that can be told apart."""

import csv
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from wbc_batch.errors import InputError, RunError
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import (
    draw_cell,
    draw_cells,
    draw_cells_elsewhere,
    draw_field,
    write_slides,
)


def density(image: np.ndarray) -> np.ndarray:
    """Optical density against the empty background."""
    lamp = np.percentile(image.reshape(-1, 3), 97, axis=0)
    return -np.log((image + 1.0) / (lamp + 1.0))


@pytest.fixture(scope="module")
def looks() -> dict[str, dict[str, float]]:
    """Mean of a few simple measures per class, over the leukocytes of four fields."""
    seen = defaultdict(lambda: defaultdict(list))
    for seed in range(4):
        image, boxes, labels = draw_field(seed, leukocytes=5)
        od = density(image)
        for (x, y, width, height), label in zip(boxes.tolist(), labels, strict=True):
            inside = np.zeros(image.shape[:2], np.uint8)
            axes = (int(width * 0.45), int(height * 0.45))
            cv2.ellipse(inside, (x + width // 2, y + height // 2), axes, 0, 0, 360, 1, -1)
            red, green, blue = od[inside > 0].T
            dark = green > 0.75
            seen[label]["diameter"].append((width + height) / 2)
            seen[label]["dark share"].append(dark.mean())
            seen[label]["blue density"].append(blue.mean())
            seen[label]["pale redness"].append((blue - red)[green < 0.6].mean())
    return {
        label: {name: float(np.mean(values)) for name, values in measures.items()}
        for label, measures in seen.items()
    }


@pytest.mark.parametrize("label", CLASSES)
def test_same_seed_same_picture(label):
    first = draw_cell(label, 7, size=120)
    assert np.array_equal(first, draw_cell(label, 7, size=120))
    assert not np.array_equal(first, draw_cell(label, 8, size=120))


@pytest.mark.parametrize("size", [16, 97, 360])
def test_picture_has_the_size_asked_for(size):
    image = draw_cell("monocyte", 0, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


def test_leukocyte_is_near_the_middle_and_darker_than_the_rest():
    for label in CLASSES:
        od = density(draw_cell(label, 3, size=180))[..., 1]
        rows, columns = np.nonzero(od > 0.75)
        assert np.hypot(rows.mean() - 90, columns.mean() - 90) < 25, label


def test_stain_and_brightness_vary_between_seeds():
    lamps = np.array(
        [np.percentile(draw_cell("lymphocyte", seed, 64), 95, axis=(0, 1)) for seed in range(12)]
    )
    assert np.ptp(lamps[:, 0]) > 18
    assert np.ptp(lamps[:, 2] / lamps[:, 0]) > 0.08


def test_draw_cells_are_balanced_shuffled_and_all_different():
    images, labels = draw_cells(25, seed=4, size=64)
    assert images.shape == (25, 64, 64, 3)
    assert images.dtype == np.uint8
    assert Counter(labels) == dict.fromkeys(CLASSES, 5)
    assert labels != draw_cells(25, seed=5, size=64)[1]
    assert len({image.tobytes() for image in images}) == 25

    again, same_labels = draw_cells(25, seed=4, size=64)
    assert np.array_equal(images, again)
    assert labels == same_labels


def test_cells_elsewhere_look_less_alike():
    strange, labels = draw_cells_elsewhere(60, seed=4, size=64)
    assert Counter(labels) == dict.fromkeys(CLASSES, 12)
    assert np.array_equal(strange, draw_cells_elsewhere(60, seed=4, size=64)[0])
    assert _spread(strange, labels) > 1.3 * _spread(*draw_cells(60, seed=4, size=64))


def _spread(images, labels):
    """How much the mean density in the middle differs from cell to cell, in the mean over the classes."""
    means = density(images[:, 22:42, 22:42]).mean(axis=(1, 2))
    names = np.array(labels)
    return np.mean([means[names == label].std(axis=0).mean() for label in CLASSES])


def test_no_cells_are_an_empty_stack():
    images, labels = draw_cells(0, size=32)
    assert images.shape == (0, 32, 32, 3)
    assert labels == []


def test_draw_cells_label_what_they_show():
    images, labels = draw_cells(20, seed=1, size=120)
    middle = density(images[:, 30:90, 30:90].reshape(-1, 3)).reshape(20, -1, 3)
    orange = (middle[..., 2] > 0.45) & (middle[..., 0] < 0.35)
    share = dict.fromkeys(CLASSES, 0.0)
    for label, value in zip(labels, orange.mean(axis=1), strict=True):
        share[label] += value
    assert max(share, key=share.get) == "eosinophil"


def test_unknown_class_is_one_clear_sentence():
    with pytest.raises(InputError) as caught:
        draw_cell("blast", 0)
    assert "'blast'" in str(caught.value)
    assert all(name in str(caught.value) for name in CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: draw_cell("monocyte", -1), "seed"),
        (lambda: draw_cell("monocyte", 0, size=8), "size"),
        (lambda: draw_cells(-1), "n"),
        (lambda: draw_cells_elsewhere(3, size=3), "size"),
        (lambda: draw_field(0, width=3), "width"),
        (lambda: draw_field(0, leukocytes=-1), "leukocytes"),
    ],
)
def test_number_out_of_range_is_named(call, name):
    with pytest.raises(InputError, match=rf"^{name} is"):
        call()


def test_field_boxes_hold_the_leukocytes():
    image, boxes, labels = draw_field(2, width=500, height=400, leukocytes=4)
    assert image.shape == (400, 500, 3)
    assert image.dtype == np.uint8
    assert boxes.shape == (4, 4)
    assert boxes.dtype.kind == "i"
    assert len(set(labels)) == 4
    x, y, width, height = boxes.T
    assert (boxes >= 0).all()
    assert (x + width <= 500).all()
    assert (y + height <= 400).all()
    for a, b in combinations(range(4), 2):
        apart_x = x[a] + width[a] <= x[b] or x[b] + width[b] <= x[a]
        apart_y = y[a] + height[a] <= y[b] or y[b] + height[b] <= y[a]
        assert apart_x or apart_y
    # What is dark as a nucleus lies in the boxes, but for a platelet now and then.
    dark = density(image)[..., 1] > 0.9
    boxed = np.zeros_like(dark)
    for left, top, w, h in boxes.tolist():
        boxed[top : top + h, left : left + w] = True
    assert dark.sum() > 2000
    assert (dark & boxed).sum() > 0.95 * dark.sum()


def test_field_is_repeatable_and_may_hold_red_cells_only():
    image, boxes, labels = draw_field(0, width=200, height=150, leukocytes=0)
    assert boxes.shape == (0, 4)
    assert labels == []
    assert np.array_equal(image, draw_field(0, width=200, height=150, leukocytes=0)[0])
    assert 0.05 < (density(image)[..., 1] > 0.15).mean() < 0.95


def test_field_without_room_says_so():
    with pytest.raises(InputError, match="200 x 150 pixels has no room"):
        draw_field(0, width=200, height=150, leukocytes=30)


def test_monocyte_is_the_largest_and_lymphocyte_the_smallest(looks):
    diameters = {label: measures["diameter"] for label, measures in looks.items()}
    assert max(diameters, key=diameters.get) == "monocyte"
    assert min(diameters, key=diameters.get) == "lymphocyte"


def test_lymphocyte_nucleus_nearly_fills_the_cell(looks):
    assert looks["lymphocyte"]["dark share"] > 0.55
    assert looks["lymphocyte"]["dark share"] > looks["neutrophil"]["dark share"] + 0.15


def test_basophil_is_covered_with_dark_granules(looks):
    assert looks["basophil"]["dark share"] > looks["neutrophil"]["dark share"] + 0.25


def test_eosinophil_is_the_orange_one(looks):
    densities = {label: measures["blue density"] for label, measures in looks.items()}
    assert max(densities, key=densities.get) == "eosinophil"
    assert densities["eosinophil"] > 1.5 * densities["neutrophil"]


def test_neutrophil_cytoplasm_is_pinker_than_the_blue_of_mononuclear_cells(looks):
    redness = {label: measures["pale redness"] for label, measures in looks.items()}
    assert redness["neutrophil"] > redness["monocyte"] + 0.1
    assert redness["neutrophil"] > redness["lymphocyte"] + 0.1


def read_labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_slides_on_disk(tmp_path):
    folder = tmp_path / "slides"
    paths = write_slides(folder, slides=3, cells=12, seed=1)

    expected = [f"slides/slide-{s}/cell-{c:04d}.png" for s in (1, 2, 3) for c in range(1, 13)]
    assert [path.relative_to(folder).as_posix() for path in paths] == expected
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*expected, "labels.csv"}

    rows = read_labels(folder)
    assert list(rows[0]) == ["path", "label"]
    assert [row["path"] for row in rows] == expected

    images = [cv2.imread(str(path)) for path in paths]
    assert {image.shape for image in images} == {(360, 360, 3)}
    assert len({image.tobytes() for image in images}) == 36


def test_slides_hold_every_class_and_differ_in_differential(tmp_path):
    write_slides(tmp_path, slides=3, cells=16)
    slides = defaultdict(list)
    for row in read_labels(tmp_path):
        slides[row["path"].split("/")[1]].append(row["label"])
    counts = [Counter(labels) for labels in slides.values()]
    assert all(set(count) == set(CLASSES) for count in counts)
    assert all(a != b for a, b in pairwise(counts))
    assert counts[0].most_common(1)[0][0] == "neutrophil"
    assert counts[1]["eosinophil"] > counts[0]["eosinophil"]
    assert counts[2].most_common(1)[0][0] == "lymphocyte"
    # The order of the file names says nothing about the class.
    assert all(labels != sorted(labels) for labels in slides.values())


def test_slides_are_stained_apart_but_each_is_stained_alike(tmp_path):
    paths = write_slides(tmp_path, slides=3, cells=6, seed=3)
    lamps = np.array(
        [np.percentile(cv2.imread(str(path))[::8, ::8], 90, axis=(0, 1)) for path in paths]
    ).reshape(3, 6, 3)
    between = lamps.mean(axis=1).std(axis=0).max()
    within = lamps.std(axis=1).mean()
    assert between > 1.5 * within


def test_writing_slides_again_gives_the_same_files(tmp_path):
    first = [path.read_bytes() for path in write_slides(tmp_path, slides=1, cells=3, seed=9)]
    again = [path.read_bytes() for path in write_slides(tmp_path, slides=1, cells=3, seed=9)]
    other = [path.read_bytes() for path in write_slides(tmp_path, slides=1, cells=3, seed=10)]
    assert first == again
    assert not set(first) & set(other)


def test_slides_never_mix_with_others(tmp_path):
    write_slides(tmp_path, slides=1, cells=3)
    with pytest.raises(RunError, match="already holds other slides, such as"):
        write_slides(tmp_path, slides=1, cells=2)
    assert len(read_labels(tmp_path)) == 3


def test_labels_of_something_else_are_not_overwritten(tmp_path):
    labels = tmp_path / "labels.csv"
    for foreign in ("mine\n", "path,label\na.png,monocyte\n", ""):
        labels.write_text(foreign)
        with pytest.raises(RunError, match=r"labels\.csv describes other cells"):
            write_slides(tmp_path, slides=1, cells=3)
        assert labels.read_text() == foreign
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def test_slides_that_cannot_be_written_say_where(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(RunError, match="file cannot be used for results"):
        write_slides(blocked, slides=1, cells=1)


def test_slides_need_at_least_one_cell(tmp_path):
    with pytest.raises(InputError, match="cells is 0"):
        write_slides(tmp_path, cells=0)


def test_drawing_needs_no_heavy_library():
    code = (
        "import sys, wbc_batch.synthetic;"
        "print(sorted({'torch', 'dask', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
