"""Single cells in any order: the same pixels, what was opened kept open, what has changed opened anew."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from wbc_batch.errors import ImageError
from wbc_batch.sources import Cell, CellReader, list_cells, read_image
from wbc_batch.sources.pack import pack

SIDE = 40


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """A folder, a stack, a packed store, and two tables of boxes in fields of view."""
    pictures = np.random.default_rng(0).integers(2, 255, (6, SIDE, SIDE, 3), np.uint8)
    (tmp_path / "folder").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "folder" / f"{number}.png")
    tifffile.imwrite(tmp_path / "stack.tif", pictures, photometric="rgb")
    pack([tmp_path / "folder"], tmp_path / "packed.zarr")
    for name in ("a", "b"):
        Image.fromarray(np.hstack(pictures)).save(tmp_path / f"field-{name}.png")
        rows = "".join(f"field-{name}.png,{SIDE * n},2,20,20\n" for n in range(6))
        (tmp_path / f"{name}.csv").write_text("path,x,y,width,height\n" + rows)
    names = ("folder", "stack.tif", "packed.zarr", "a.csv", "b.csv")
    return [tmp_path / name for name in names]


def test_cells_in_any_order_have_the_pixels_that_they_have_in_theirs(inputs: list[Path]) -> None:
    cells = list(list_cells(inputs))
    reader = CellReader()
    for number in np.random.default_rng(1).permutation(len(cells)):
        np.testing.assert_array_equal(reader.read(cells[number]), read_image(cells[number]))


def chunks(store: Path) -> Path:
    """Where the pixels of a packed store lie; what else it has is beside."""
    return store / "crops" / "c"


def test_a_store_stays_open_until_it_is_another_one(inputs: list[Path]) -> None:
    store = inputs[2]
    cells = list(list_cells([store]))
    reader = CellReader()
    first = reader.read(cells[0])
    shutil.rmtree(chunks(store))
    assert reader.read(cells[1]).shape == first.shape  # of the block that was read
    shutil.rmtree(store)
    with pytest.raises(ImageError, match="is gone"):
        reader.read(cells[0])
    zarr.create_array(store, data=np.full((2, 8, 9, 3), 7, np.uint8))
    assert reader.read(Cell(str(store), "", 1, "")).shape == (8, 9, 3)


def test_no_more_than_two_stores_or_tables_stay_open(inputs: list[Path]) -> None:
    store, *tables = inputs[2:]
    cells = list(list_cells([store]))
    reader = CellReader()
    reader.read(cells[0])
    for table in tables:
        reader.read(next(list_cells([table])))
    shutil.rmtree(chunks(store))
    with pytest.raises(ImageError, match="nothing but its fill value"):
        reader.read(cells[0])


def test_what_was_mended_is_read(inputs: list[Path]) -> None:
    table = inputs[3]
    first, second, *_ = list_cells([table])
    reader = CellReader()
    field = table.parent / "field-a.png"
    away = field.rename(table.parent / "away.png")
    for _ in range(2):
        with pytest.raises(ImageError, match="there is no file"):
            reader.read(first)
    away.rename(field)
    pixels = reader.read(first)
    field.unlink()  # decoded once for all its boxes
    assert reader.read(second).shape[0] == pixels.shape[0]
