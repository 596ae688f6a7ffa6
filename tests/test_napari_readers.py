"""What File > Open and File > Save offer."""

import shutil
from types import SimpleNamespace

import npe2
import numpy as np
import pandas as pd
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.notifications import notification_manager
from report_runs import draw

from wbc_batch.errors import ImageError, InputError
from wbc_batch.run import classify_paths
from wbc_batch.schema import CELL_COLUMNS
from wbc_batch.sources import list_cells, pack, read_image
from wbc_batch.synthetic import write_slides
from wbc_napari.batch_run import open_run
from wbc_napari.companions import crops_behind
from wbc_napari.export import Export, write_export
from wbc_napari.layers import CropSize, crops_of, whole_fields
from wbc_napari.marks import MARK
from wbc_napari.readers import read_crops, read_run, write_corrections
from wbc_napari.report_page import agreements
from wbc_napari.session import Session


def test_a_zarr_array_of_crops_is_opened_lazily(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (5, 20, 30, 3)).astype(np.uint8)
    zarr.create_array(tmp_path / "slide.zarr", data=data, chunks=(2, 20, 30, 3))
    ((array, attributes, kind),) = read_crops(str(tmp_path / "slide.zarr"))(None)
    assert (kind, attributes["name"], attributes["rgb"]) == ("image", "slide", True)
    assert isinstance(array, zarr.Array)
    layer = Layer.create(array, attributes, kind)
    np.testing.assert_array_equal(np.asarray(layer.data[3]), data[3])


def test_a_zarr_array_with_colours_before_the_rows_is_opened_as_crops(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (5, 3, 20, 30)).astype(np.uint8)
    zarr.create_array(tmp_path / "slide.zarr", data=data)
    layer = Layer.create(*read_crops(str(tmp_path / "slide.zarr"))(None)[0])
    assert (layer.rgb, layer.axis_labels) == (False, ("cell", "c", "y", "x"))
    crops = crops_of(layer, None, CropSize())
    assert len(crops) == len(list(list_cells([tmp_path / "slide.zarr"]))) == 5
    np.testing.assert_array_equal(next(crops.read([3])), np.moveaxis(data[3], 0, -1))


@pytest.mark.parametrize("axis", [0, 2])
def test_a_zarr_array_of_one_picture_is_opened_as_a_field(axis, tmp_path):
    shape = (20, 30, 3) if axis == 2 else (3, 20, 30)
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    zarr.create_array(tmp_path / "field.zarr", data=data)
    layer = Layer.create(*read_crops(str(tmp_path / "field.zarr"))(None)[0])
    assert layer.rgb == (axis == 2)
    fields = whole_fields(layer)
    assert len(fields) == 1
    np.testing.assert_array_equal(next(fields.read([0])), np.moveaxis(data, axis, -1))


def test_other_stores_and_files_are_left_to_other_readers(tmp_path):
    zarr.create_array(tmp_path / "flat.zarr", data=np.zeros((5, 4)), chunks=(5, 4))
    zarr.create_group(tmp_path / "group.zarr")
    (tmp_path / "a.csv").write_text("axis-0,axis-1\n1,2\n")
    (tmp_path / "folder").mkdir()
    for name in ("flat.zarr", "group.zarr", "folder", "absent.zarr"):
        assert read_crops(str(tmp_path / name)) is None
    for name in ("a.csv", "folder", "absent.csv"):
        assert read_run(str(tmp_path / name)) is None


@pytest.mark.usefixtures("blank_drawings")
def test_a_run_is_opened_with_its_crops_and_corrections_are_saved(tmp_path):
    write_slides(tmp_path / "drawn", slides=1, cells=6)
    slides, run = tmp_path / "drawn" / "slides", tmp_path / "run"
    broken = next(slides.rglob("*.png"))
    broken.write_bytes(b"no picture")
    classify_paths(slides, run, device="cpu", workers=1)
    image, points = (Layer.create(*data) for data in read_run(str(run))(None))
    cells = pd.read_csv(run / "cells.csv", keep_default_na=False)
    assert points.features["cell_id"].tolist() == cells["cell_id"].tolist()
    assert points.features["status"].tolist().count("error") == 1
    stds = [float(np.asarray(image.data[row]).std()) for row in range(6)]
    wrong = points.features["status"].tolist().index("error")
    assert stds[wrong] == 0  # blank, and no traceback
    assert min(std for row, std in enumerate(stds) if row != wrong) > 0
    points.features.loc[2, ["reviewed_label", "reviewed_by", "reviewed_at"]] = [
        "monocyte",
        "a",
        "t",
    ]
    path = str(tmp_path / "c.csv")
    assert write_corrections(path, points.data, points._get_state()) == [path]
    assert pd.read_csv(path)["cell_id"].tolist() == [cells["cell_id"][2]]


def test_a_run_whose_crops_are_gone_is_opened_with_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = edited_table(tmp_path)
    draw(tmp_path / "in" / "a.png")
    for there in (True, False):
        if not there:
            (tmp_path / "in" / "a.png").unlink()
        notification_manager.records.clear()
        assert len(read_run(str(path))(None)) == 2
        told = [str(record.message) for record in notification_manager.records]
        assert len(told) == (not there)
    assert f"The crops of '{tmp_path.name}' cannot be read" in told[0]
    assert f"found them in {tmp_path / 'in'};" in told[0]


HEAD = {
    "cell_id": "ab",
    "source": "in",
    "member": "a.png",
    "index": "",
    "group": "g",
    "status": "ok",
}
SAID = {"label": "monocyte", "predicted": "monocyte", "confidence": "0.9", "margin": "0.8"}
REVIEW = {"reviewed_label": "basophil", "reviewed_by": "ann", "reviewed_at": "2026-01-02"}


def edited_table(folder, **changes):
    """Write a table of two cells; what is changed is so in the second."""
    rows = [dict.fromkeys(CELL_COLUMNS, "") | HEAD | SAID | REVIEW for _ in range(2)]
    rows[1] |= {"cell_id": "cd"} | changes
    pd.DataFrame(rows).to_csv(folder / "cells.csv", index=False)
    return folder / "cells.csv"


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("confidence", "0,95", "not numbers"),
        ("prob_basophil", "high", "not numbers"),
        ("index", "abc", "not whole numbers"),
        ("index", "1.5", "not whole numbers"),
        ("x", "inf", "not whole numbers"),
        ("reviewed_label", "blast", "not among basophil, eosinophil"),
        ("label", "blast", "not among basophil, eosinophil"),
    ],
)
def test_a_table_with_a_value_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path, column, value, what
):
    path = edited_table(tmp_path, **{column: value})
    with pytest.raises(InputError) as told:
        read_run(str(path))(None)
    assert str(told.value).startswith(f"{path} has ")
    assert f"in the column {column} that are {what}" in str(told.value)
    assert f"row 3 ('{value}')" in str(told.value)


def test_a_table_that_a_person_edited_is_reviewed_further(tmp_path):
    path = edited_table(tmp_path, reviewed_label=" Neutrophil", reviewed_by=" ")
    draw(tmp_path / "in" / "a.png")
    viewer = ViewerModel()
    for data in read_run(str(path))(None):
        viewer.add_layer(Layer.create(*data))
    session = Session(viewer, viewer.layers[-1], "lee", tmp_path / "journal.jsonl")
    assert session.review.readings["lee"].label.tolist() == ["", "neutrophil"]
    session.read_as("ann")
    assert agreements(session) == [
        "With the model: 0 of 1 cells agree, κ = 0.00",
    ]


@pytest.mark.parametrize("kind", ["points", "shapes"])
def test_file_save_writes_the_corrections_of_points_and_of_boxes(kind, tmp_path):
    places = {"points": np.zeros((2, 2)), "shapes": np.zeros((2, 4, 2))}[kind]
    features = pd.DataFrame(
        {
            "cell_id": ["a" * 16, "b" * 16],
            "reviewed_label": ["", "monocyte"],
            "reviewed_by": ["", "a"],
            "reviewed_at": ["", "t"],
        }
    )
    layer = Layer.create(places, {"features": features, "metadata": {MARK: {}}}, kind)
    path = str(tmp_path / "c.csv")
    npe2.PluginManager.instance().discover()
    written = npe2.write(path, [layer.as_layer_data_tuple()], plugin_name="wbc-napari")
    assert written == [path]
    assert pd.read_csv(path)["cell_id"].tolist() == ["b" * 16]


@pytest.mark.usefixtures("blank_drawings")
def test_the_crops_of_a_packed_run_come_from_its_store_when_the_pictures_are_gone(tmp_path):
    write_slides(tmp_path / "drawn", slides=2, cells=5)
    slides, store, run = tmp_path / "drawn" / "slides", tmp_path / "all.zarr", tmp_path / "run"
    broken = next(slides.rglob("*.png"))
    broken.write_bytes(b"no picture")
    cells = list(list_cells([slides]))
    pixels = {cell.cell_id: read_image(cell) for cell in cells if broken.name not in cell.member}
    pack.pack([slides], store)
    classify_paths(store, run, device="cpu", workers=1)
    shutil.rmtree(slides)
    image, points = (Layer.create(*data) for data in read_run(str(run / "cells.csv"))(None))
    crops = crops_behind(SimpleNamespace(layers=[image, points]), points)
    read = dict(zip(points.features["cell_id"], crops.read(range(10)), strict=True))
    for cell_id, expected in pixels.items():
        np.testing.assert_array_equal(read[cell_id], expected)
    gone = [cell_id for cell_id, found in read.items() if isinstance(found, ImageError)]
    wrong = points.features["status"] == "error"
    assert points.features.loc[wrong, "cell_id"].tolist() == gone
    assert points.features.loc[wrong, "error"].iloc[0] in str(read[gone[0]])
    exported = tmp_path / "exported"
    model = points.metadata["wbc_napari"]["model"]
    list(write_export(Export(exported, points.features.copy(), crops, model)))
    again = open_run(exported)
    assert again.cells["position"].tolist() == points.features["position"].tolist()
