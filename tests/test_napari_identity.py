"""What was said of cells stays with these cells: under other names, readers, layers and marks."""

import numpy as np
import pytest
from napari.components import ViewerModel
from reviews import MODEL, add_cells, classified, noise

from wbc_batch.errors import ImageError
from wbc_batch.synthetic import draw_field
from wbc_napari.appearance import dress
from wbc_napari.companions import adopt_reopened, has_pixels
from wbc_napari.crops import CropStack, FieldCrops
from wbc_napari.images import remember_source
from wbc_napari.layers import CropSize, crop_stack, crops_of
from wbc_napari.runner import saying_why
from wbc_napari.session import Session
from wbc_napari.tables import cell_table, resumed, review_of_other_size
from wbc_napari.thumbnails import Thumbnails

pytestmark = pytest.mark.usefixtures("own_journals")


def shown(pixels):
    """A viewer with a stack, and the layer of its cells."""
    viewer = ViewerModel()
    cells = add_cells(viewer, pixels)
    remember_source(viewer.layers["slide"])
    return viewer, cells


def test_what_another_reader_said_outlives_that_it_is_not_shown():
    viewer, cells = shown(noise(4))
    cells.features.loc[[0, 2], ["reviewed_label", "reviewed_by"]] = ["basophil", "Anna"]
    session = Session(viewer, cells, "Bob")
    assert session.others == {"Anna": 2}
    assert (session.cells["reviewed_label"] == "").all()
    again = Session(viewer, cells, "Bob")  # as after another layer was looked at
    again.read_as("Anna")
    assert again.cells["reviewed_label"].tolist() == ["basophil", "", "basophil", ""]


def test_labels_are_not_restored_onto_other_cells_of_the_same_name():
    first, second = noise(4), noise(4, seed=1)
    second[0] = first[0]
    viewer, cells = shown(first)
    Session(viewer, cells, "ann").relabel([1, 2], "basophil")
    viewer, cells = shown(second)
    assert Session(viewer, cells, "ann").restored == 0
    viewer, cells = shown(first)
    assert Session(viewer, cells, "ann").restored == 2


def test_pixels_that_were_exchanged_under_a_file_take_no_labels(tmp_path):
    journal = tmp_path / "slide.tif.review.jsonl"
    viewer, cells = shown(noise(4))
    Session(viewer, cells, "ann", journal).relabel([1], "basophil")
    viewer, cells = shown(noise(4, seed=1))
    assert Session(viewer, cells, "ann", journal).restored == 0


def test_a_review_outlives_that_its_layers_are_renamed():
    viewer, cells = shown(noise(4))
    Session(viewer, cells, "ann").relabel([1], "basophil")
    viewer.layers["slide"].name, cells.name = "other", "mine"
    image = viewer.layers["other"]
    again = resumed(cell_table(crop_stack(image)), cells.features, results=True)
    assert again["reviewed_label"].tolist() == ["", "basophil", "", ""]
    Session(viewer, cells, "ann").relabel([2], "basophil")
    viewer, cells = shown(noise(4))
    assert Session(viewer, cells, "ann").restored == 2


def test_an_image_that_is_opened_again_is_that_of_its_cells():
    viewer, cells = shown(noise(4))
    viewer.layers.remove("slide")
    assert not has_pixels(viewer, cells)
    viewer.add_image(noise(4)[:3], rgb=True, name="slide")  # another one
    adopt_reopened(viewer)
    assert not has_pixels(viewer, cells)
    viewer.layers.remove("slide")
    viewer.add_image(noise(4), rgb=True, name="slide")
    adopt_reopened(viewer)
    assert has_pixels(viewer, cells)
    Session(viewer, cells, "ann")


def corners(box):
    x, y, width, height = box
    return np.array([[y, x], [y, x + width], [y + height, x + width], [y + height, x]], float) - 0.5


@pytest.fixture
def boxes():
    """A viewer with a field, and three boxes on it that were classified."""
    pixels, found, _ = draw_field(seed=0, width=640, height=480, leukocytes=5)
    viewer = ViewerModel()
    image = viewer.add_image(pixels, rgb=True, name="field")
    shapes = viewer.add_shapes([corners(box) for box in found[:3]], shape_type="rectangle")
    dress(shapes, classified(crops_of(image, shapes, CropSize())), image, MODEL, 100)
    return viewer, shapes, found


def test_a_box_that_was_drawn_later_is_a_cell_of_its_own(boxes):
    viewer, shapes, found = boxes
    shapes.add_rectangles(corners(found[3]))
    session = Session(viewer, shapes, "ann")
    assert session.cells["status"].tolist() == ["ok", "ok", "ok", "pending"]
    assert session.cells["label"].tolist() == ["monocyte"] * 3 + [""]
    assert session.cells["cell_id"].is_unique
    assert session.cells[["x", "y"]].iloc[3].tolist() == found[3][:2].tolist()


def test_a_box_that_was_pasted_is_a_cell_of_its_own(boxes):
    viewer, shapes, _ = boxes
    Session(viewer, shapes, "ann").relabel([0], "basophil")
    shapes.selected_data = {0}
    shapes._copy_data()
    shapes._paste_data()
    session = Session(viewer, shapes, "ann")
    assert session.cells["status"].tolist() == ["ok", "ok", "ok", "pending"]
    assert session.cells["reviewed_label"].tolist() == ["basophil", "", "", ""]
    table = cell_table(crops_of(viewer.layers["field"], shapes, CropSize()))
    assert table["cell_id"].is_unique
    known = resumed(table, session.cells, results=True)
    assert known["status"].tolist() == ["ok", "ok", "ok", "pending"]


def test_a_point_that_was_drawn_later_is_cut_out_like_the_others():
    pixels, found, _ = draw_field(seed=0, width=640, height=480, leukocytes=5)
    centres = found[:, [1, 0]] + found[:, [3, 2]] / 2
    viewer = ViewerModel()
    image = viewer.add_image(pixels, rgb=True, name="field")
    points = viewer.add_points(centres[:2])
    dress(points, classified(crops_of(image, points, CropSize(80))), image, MODEL, 80)
    points.add(centres[2])
    session = Session(viewer, points, "ann")
    assert session.cells["status"].tolist() == ["ok", "ok", "pending"]
    assert session.cells[["width", "height"]].to_numpy().tolist() == [[80, 80]] * 3


def test_a_review_that_goes_on_does_not_read_the_image_again_and_keeps_its_journal(
    boxes, monkeypatch
):
    viewer, shapes, found = boxes
    read, fingerprint = [], FieldCrops.fingerprint
    monkeypatch.setattr(
        FieldCrops, "fingerprint", lambda crops: read.append(1) or fingerprint(crops)
    )
    session = Session(viewer, shapes, "ann")
    shapes.add_rectangles(corners(found[3]))
    again = Session(viewer, shapes, "ann", earlier=session)
    assert (len(read), again.journal.path) == (1, session.journal.path)
    assert again.journal.pixels == session.journal.pixels
    viewer.layers["field"].data = np.zeros_like(viewer.layers["field"].data)
    other = Session(viewer, shapes, "ann", earlier=again)
    assert other.journal.pixels != again.journal.pixels


class Damaged:
    """A stack one of whose crops cannot be read, as a chunk of a file that is damaged."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim

    def __getitem__(self, key):
        first = key[0] if isinstance(key, tuple) else key
        if 2 in range(*first.indices(len(self.data))):
            raise ValueError("chunk is damaged")
        return self.data[key]


def test_a_crop_that_cannot_be_read_is_an_error_and_its_neighbours_are_read():
    crops = CropStack("slide", "slide", Damaged(noise(4)), 3)
    read = list(crops.read(range(4)))
    assert [isinstance(crop, ImageError) for crop in read] == [False, False, True, False]
    assert "chunk is damaged" in str(read[2])
    assert np.array_equal(read[3], noise(4)[3])


def test_pictures_of_crops_come_though_one_cannot_be_read(qtbot):
    class Breaking(CropStack):
        def read(self, wanted):
            if list(wanted) == [3]:
                raise KeyError("no such file")
            return super().read(wanted)

    pictures = Thumbnails(Breaking("slide", "slide", noise(4), 3), 20)
    came = []
    pictures.ready.connect(came.append)
    for row in range(4):
        pictures.get(row)
    qtbot.waitUntil(lambda: sorted(came) == [0, 1, 2, 3], timeout=10_000)
    pictures.close()


def test_a_run_that_fails_for_a_reason_that_nobody_foresaw_says_so():
    def steps():
        yield 1
        raise ValueError("something odd")

    said = saying_why(steps())
    assert next(said) == 1
    with pytest.raises(StopIteration) as end:
        next(said)
    assert "The run ended early: something odd" in end.value.value


@pytest.mark.parametrize(
    ("at", "label"),
    [
        ("2999-01-01T10:00:00+00:00", "monocyte"),
        ("1999-01-01T10:00:00+00:00", "eosinophil"),
        ("yesterday", "eosinophil"),
    ],
)
def test_of_what_a_table_and_the_journal_say_the_later_counts(at, label):
    viewer, cells = shown(noise(4))
    Session(viewer, cells, "ann").relabel([0], "eosinophil")
    viewer, cells = shown(noise(4))  # as from a table that was written over meanwhile
    review = ["reviewed_label", "reviewed_by", "reviewed_at"]
    cells.features.loc[0, review] = ["monocyte", "ann", at]
    assert Session(viewer, cells, "ann").cells["reviewed_label"][0] == label


def test_labels_of_points_outlive_that_another_size_is_cut_out():
    pixels, found, _ = draw_field(seed=0, width=640, height=480, leukocytes=5)
    viewer = ViewerModel()
    image = viewer.add_image(pixels, rgb=True, name="field")
    points = viewer.add_points(found[:3, [1, 0]] + found[:3, [3, 2]] / 2)

    def classify(size):
        table = classified(crops_of(image, points, CropSize(size)))
        dress(points, review_of_other_size(table, points.features), image, MODEL, size)
        return Session(viewer, points, "ann")

    classify(100).relabel([0, 1], "basophil")
    points.data = np.add(points.data, [[0, 0], [5, 0], [0, 0]])  # the second is another cell now
    session = classify(121)
    assert session.cells["reviewed_label"].tolist() == ["basophil", "", ""]
    session.relabel([2], "eosinophil")
    points.features = classified(crops_of(image, points, CropSize(121)))  # as after a crash
    assert Session(viewer, points, "ann").restored == 2
    assert classify(100).cells["reviewed_label"].tolist() == ["basophil", "", "eosinophil"]
