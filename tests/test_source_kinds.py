"""Archives, stacks, arrays and tables: the same cells through every door, and what damage becomes."""

import errno
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from PIL import Image
from zarr.codecs import BloscCodec, Crc32cCodec

from wbc_batch.errors import (
    ExitCode,
    ImageError,
    IncompleteRunError,
    InputError,
    UnreachableError,
)
from wbc_batch.sources import (
    Box,
    Cell,
    CellReader,
    PathList,
    attempt_read,
    list_cells,
    read_image,
    readers,
    stdin_kept,
    tables,
)
from wbc_batch.sources.fetching import LoadedAhead
from wbc_batch.sources.kinds import is_url

COUNT, HEIGHT, WIDTH = 12, 40, 50
#: Read around each box that these tests name.
ROOM = 6


def pictures(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Smooth coloured pictures that all differ, (N, H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(30, 255, (count, 4, 5, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (WIDTH, HEIGHT)) for one in small])


PICTURES = pictures()


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def read_all(cells: Iterable[Cell], base: Path | None = None) -> list[np.ndarray | str]:
    """Pixels or reasons, read on threads as a worker does."""

    def outcome(read: Callable[[], np.ndarray]) -> np.ndarray | str:
        try:
            return read()
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(outcome, readers(cells, base)))


def reasons(cells: Iterable[Cell]) -> list[str]:
    return [found if isinstance(found, str) else "" for found in read_all(cells)]


def assert_pictures(cells: Sequence[Cell], expected: np.ndarray = PICTURES) -> None:
    """Each cell is its picture, read together and read alone, by identity and place."""
    assert len(cells) == len(expected)
    assert len({cell.cell_id for cell in cells}) == len(cells)
    for found, picture in zip(read_all(cells), expected, strict=True):
        assert isinstance(found, np.ndarray), found
        assert (found == picture).all()
    assert (read_image(cells[-1]) == expected[-1]).all()


# --- archives


def members(count: int = COUNT) -> list[tuple[str, bytes]]:
    return [(f"slide-{n % 2}/{n:02d}.png", png(PICTURES[n])) for n in range(count)]


def write_zip(
    path: Path, files: Iterable[tuple[str, bytes]], how: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.mkdir("slide-0") if hasattr(archive, "mkdir") else None
        for name, data in files:
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


LITTER = [("__MACOSX/slide-0/._00.png", b"x"), (".hidden/1.png", b"x"), ("slide-0/Thumbs.db", b"x")]


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_archives_are_read_in_place(how: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "smears.zip", members() + LITTER, how)
    cells = list(list_cells([path]))
    assert {cell.source for cell in cells} == {path.as_posix()}
    assert [cell.member for cell in cells] == [name for name, _ in members()]
    assert [cell.group for cell in cells[:2]] == ["slide-0", "slide-1"]
    assert_pictures(cells)
    assert [entry.name for entry in tmp_path.iterdir()] == ["smears.zip"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_archives_are_read_in_place(
    mode: str, kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "format", kind)
    suffix = mode.partition(":")[2]
    deep = "ä" * 40 + "/" + "b" * 40 + "/" + "c" * 30  # too long for one old header
    files = [(f"./{deep}/{name}", data) for name, data in members()] + LITTER
    path = write_tar(tmp_path / ("smears.tar" + (f".{suffix}" if suffix else "")), files, mode)
    cells = list(list_cells([path]))
    assert [cell.member for cell in cells] == [f"{deep}/{name}" for name, _ in members()]
    assert cells[0].group == f"{deep}/slide-0"
    assert_pictures(cells)
    assert_pictures(list(reversed(cells)), PICTURES[::-1])  # a shard may come before another


@pytest.mark.parametrize("spelling", ["./slide-1/{}.png", "slide-1\\{}.png", "slide-1//./{}.png"])
def test_names_in_zip_archives_are_spelled_in_many_ways(spelling: str, tmp_path: Path) -> None:
    files = [(spelling.format(n), png(PICTURES[n])) for n in range(3)]
    cells = list(list_cells([write_zip(tmp_path / "a.zip", [*files, ("./.DS_Store", b"x")])]))
    assert [(c.member, c.group) for c in cells] == [
        (f"slide-1/{n}.png", "slide-1") for n in range(3)
    ]
    assert_pictures(cells, PICTURES[:3])


def test_cells_of_a_zip_archive_are_the_same_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a/1\\2.png", "b\\3.png", "c/4.png")
    path = write_zip(
        tmp_path / "a.zip", [(n, png(p)) for n, p in zip(names, PICTURES, strict=False)]
    )
    here = list(list_cells([path]))
    there = {name: getattr(os, name) for name in dir(os)} | {"sep": "\\"}
    monkeypatch.setattr("zipfile.os", SimpleNamespace(**there))
    assert list(list_cells([path])) == here
    assert_pictures(here, PICTURES[:3])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_of_files_of_one_name_the_last_one_counts(name: str, tmp_path: Path) -> None:
    again = [(f"./{members()[0][0]}", png(PICTURES[5])), (members()[1][0], png(PICTURES[6]))]
    path = tmp_path / name
    if name == "a.zip":
        write_zip(path, [*members(3), *again])
    else:
        write_tar(path, [*members(3), *again], "w:gz" if name.endswith("gz") else "w")
    cells = sorted(list_cells([path]), key=lambda cell: cell.member)
    assert_pictures(cells, PICTURES[[5, 2, 6]])


def test_links_in_a_tar_archive_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "slide"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(PICTURES[0]))
    (folder / "b.png").hardlink_to(folder / "a.png")
    (folder / "c.png").symlink_to("a.png")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(folder, "slide")
    cells = list(list_cells([tmp_path / "s.tar"]))
    assert sorted(cell.member for cell in cells) == ["slide/a.png", "slide/b.png", "slide/c.png"]
    assert all((found == PICTURES[0]).all() for found in read_all(cells))


def test_a_hard_link_is_what_its_target_was_when_it_was_made(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, number in (("a.png", 0), ("b.png", None), ("a.png", 5)):
            info = tarfile.TarInfo(name)
            if number is None:
                info.type, info.linkname = tarfile.LNKTYPE, "a.png"
                archive.addfile(info)
                continue
            data = png(PICTURES[number])
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    link, last = list_cells([tmp_path / "s.tar"])
    assert (link.member, last.member) == ("b.png", "a.png")
    assert_pictures([link, last], PICTURES[[0, 5]])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_archive_that_was_changed_after_it_was_listed_gives_no_neighbour(
    mode: str, tmp_path: Path
) -> None:
    files = [("0.png", png(PICTURES[0])), ("1.png", png(PICTURES[0]))]
    path = write_tar(tmp_path / f"a.tar{mode[2:] and '.gz'}", files, mode)
    cells = list(list_cells([path]))
    write_tar(path, files[::-1], mode)
    assert all("changed after it was listed" in reason for reason in reasons(cells))


def test_members_are_found_by_their_names_alone(tmp_path: Path) -> None:
    for path in (
        write_zip(tmp_path / "a.zip", members()),
        write_tar(tmp_path / "a.tar", members()),
    ):
        cell = Cell(path.as_posix(), "slide-1/03.png", None, "")
        assert (read_image(cell) == PICTURES[3]).all()
        with pytest.raises(ImageError, match=r"the file is no.* in the archive"):
            read_image(Cell(path.as_posix(), "other.png", None, ""))
        assert (read_image(Cell(path.name, cell.member, None, ""), tmp_path) == PICTURES[3]).all()


def test_why_images_of_a_compressed_archive_are_not_shown_is_true(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", members(), "w:gz")
    with pytest.raises(
        ImageError, match=r"compressed TAR archive.* not shown after the run; unpack"
    ):
        read_image(Cell(path.as_posix(), "slide-1/03.png", None, ""))


def test_finding_a_member_by_its_name_takes_few_bytes_for_each(tmp_path: Path) -> None:
    count = 4_000
    files = [*((f"slide/{'long' * 10}-{n:06d}.png", b"") for n in range(count)), members()[3]]
    path = write_tar(tmp_path / "a.tar", files)
    cell = Cell(path.as_posix(), files[-1][0], None, "")
    assert (read_image(cell) == PICTURES[3]).all()
    write_tar(path, [*files, ("z.png", b"")])  # another archive, which nobody knows yet
    tracemalloc.start()
    read_image(cell)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 64 * count
    assert most < 128 * count


def test_a_damaged_member_is_one_row(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members())
    data = bytearray(path.read_bytes())
    at = data.index(members()[3][1]) + 60
    data[at] ^= 0xFF
    path.write_bytes(data)
    cells = list(list_cells([path]))
    found = reasons(cells)
    assert [number for number, reason in enumerate(found) if reason] == [3]
    assert "damaged in the archive" in found[3]


def test_a_truncated_zip_archive_is_one_sentence(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", members())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.zip: the list of contents .* copy it again"):
        list(list_cells([path]))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_truncated_tar_archive_keeps_what_is_there(
    mode: str, share: float, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / f"a.tar{'.gz' if ':' in mode else ''}", members(), mode)
    whole = path.read_bytes()
    end = len(whole) if ":" in mode else len(whole.rstrip(b"\0"))
    path.write_bytes(whole[: int(end * share)])
    cells = list(list_cells([path]))
    found = read_all(cells)
    good = [one for one in found if not isinstance(one, str)]
    assert 0 < len(good) < COUNT
    assert all((one == picture).all() for one, picture in zip(good, PICTURES, strict=False))
    assert isinstance(found[-1], str)
    assert "everything after this point is lost" in found[-1]
    assert len(found) - len(good) <= 2  # the file that was cut, and the tail


def test_archives_that_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"empty\.zip holds no files"):
        list(list_cells([write_zip(tmp_path / "empty.zip", [])]))
    with pytest.raises(InputError, match=r"empty\.tar holds no files"):
        list(list_cells([write_tar(tmp_path / "empty.tar", [])]))
    (tmp_path / "no.tar").write_bytes(b"nothing of that kind" * 100)
    with pytest.raises(InputError, match=r"no\.tar cannot be read as a TAR archive"):
        list(list_cells([tmp_path / "no.tar"]))


# --- stacks

FIRST = np.moveaxis(PICTURES, 3, 1)  # (N, 3, H, W)
STACKS: dict[str, tuple[np.ndarray, dict]] = {
    "pages": (PICTURES, {"photometric": "rgb", "metadata": None}),
    "deflate": (PICTURES, {"photometric": "rgb", "metadata": None, "compression": "zlib"}),
    "lzw": (PICTURES, {"photometric": "rgb", "compression": "lzw", "predictor": True}),
    "tiles": (PICTURES, {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}),
    "shaped": (PICTURES, {"photometric": "rgb"}),
    "planar": (FIRST, {"photometric": "rgb", "planarconfig": 2}),
    "big endian": (PICTURES, {"photometric": "rgb", "byteorder": ">"}),
    "big": (PICTURES, {"photometric": "rgb", "bigtiff": True}),
    "ome": (PICTURES, {"photometric": "rgb", "ome": True, "metadata": {"axes": "TYXS"}}),
    "ome tiles": (PICTURES, {"photometric": "rgb", "ome": True, "tile": (16, 16)}),
    "ome planes": (FIRST, {"photometric": "minisblack", "ome": True, "metadata": {"axes": "TCYX"}}),
    "imagej": (PICTURES, {"photometric": "rgb", "imagej": True}),
    "imagej planes": (FIRST, {"imagej": True, "metadata": {"axes": "TCYX"}}),
}


@pytest.mark.parametrize("kind", STACKS)
def test_every_page_of_a_stack_is_a_cell(kind: str, tmp_path: Path) -> None:
    data, options = STACKS[kind]
    path = tmp_path / "slide-1.ome.tif"
    tifffile.imwrite(path, data, **options)
    cells = list(list_cells([path]))
    assert [(cell.member, cell.index, cell.group) for cell in cells] == [
        ("", index, "slide-1") for index in range(COUNT)
    ]
    assert_pictures(cells)


def test_grey_deep_and_inverted_stacks_are_pictures_too(tmp_path: Path) -> None:
    grey = PICTURES[..., 0]
    for number, (data, options) in enumerate(
        [
            (grey, {}),
            (grey, {"ome": True}),
            (grey.astype(np.uint16) * 257, {"compression": "zlib"}),
            (255 - grey, {"photometric": "miniswhite", "metadata": None, "compression": "zlib"}),
        ]
    ):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, data, **options)
        found = read_all(list_cells([path]))
        assert len(found) == COUNT, number
        for one, expected in zip(found, grey, strict=True):
            scale = 255 / expected.max() if data.dtype == np.uint16 else 1
            assert np.abs(one[..., 1] - expected * scale).max() <= 1, number


def test_pages_of_different_sizes_keep_their_order(tmp_path: Path) -> None:
    sizes = [(20, 30), (25, 25), (20, 30), (40, 50)]
    for ome in (False, True):
        path = tmp_path / f"mixed-{ome}.tif"
        with tifffile.TiffWriter(path, ome=ome) as writer:
            for number, (height, width) in enumerate(sizes):
                page = PICTURES[number, :height, :width].copy()
                writer.write(page, photometric="rgb", metadata={} if ome else None)
        cells = list(list_cells([path]))
        for number, found in enumerate(read_all(cells)):
            height, width = sizes[number]
            assert (found == PICTURES[number, :height, :width]).all()


def test_a_tiff_of_one_page_stays_one_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cell.tif", PICTURES[0], photometric="rgb")
    (cell,) = list_cells([tmp_path / "cell.tif"])
    assert cell == Cell((tmp_path / "cell.tif").as_posix(), "", None, tmp_path.name)
    assert (read_image(cell) == PICTURES[0]).all()


def test_channels_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fluorescence.tif"
    tifffile.imwrite(
        path, np.zeros((3, 5, 40, 50), np.uint8), imagej=True, metadata={"axes": "TCYX"}
    )
    with pytest.raises(InputError, match=r"fluorescence\.tif has 5 channels"):
        list(list_cells([path]))


@pytest.mark.parametrize("kind", ["pages", "deflate", "tiles", "shaped", "ome", "imagej"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_truncated_stack_loses_nothing_that_is_there(
    kind: str, share: float, tmp_path: Path
) -> None:
    data, options = STACKS[kind]
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, data, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    cells = list(list_cells([path]))
    found = read_all(cells)
    good = [number for number, one in enumerate(found) if not isinstance(one, str)]
    assert len(good) < len(found)  # whatever is lost, a row says so
    assert all((found[number] == PICTURES[number]).all() for number in good)
    assert all(reason and "\n" not in reason for reason in found if isinstance(reason, str))


def test_a_damaged_page_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, PICTURES, photometric="rgb", metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as stack:
        at = stack.pages[5].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    found = reasons(list_cells([path]))
    assert [number for number, reason in enumerate(found) if reason] == [5]
    assert "this page of the stack is truncated or damaged" in found[5]


# --- arrays


def write_array(path: Path, crops: np.ndarray, **options: object) -> Path:
    array = zarr.create_array(path, shape=crops.shape, dtype=crops.dtype, **options)
    array[:] = crops
    return path


ARRAYS: dict[str, tuple[np.ndarray, dict]] = {
    "v3": (PICTURES, {"chunks": (5, HEIGHT, WIDTH, 3)}),
    "v2": (PICTURES, {"chunks": (5, HEIGHT, WIDTH, 3), "zarr_format": 2}),
    "sharded": (PICTURES, {"chunks": (2, HEIGHT, WIDTH, 3), "shards": (6, HEIGHT, WIDTH, 3)}),
    "channels first": (FIRST, {"chunks": (1, 3, HEIGHT, WIDTH)}),
    "v2 channels first": (FIRST, {"chunks": (5, 3, HEIGHT, WIDTH), "zarr_format": 2}),
    "small chunks": (PICTURES, {"chunks": (3, 16, 16, 1)}),
    "one chunk": (PICTURES, {"chunks": PICTURES.shape}),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("url", [False, True])
def test_every_crop_of_an_array_is_a_cell(kind: str, url: bool, tmp_path: Path) -> None:
    crops, options = ARRAYS[kind]
    path = write_array(tmp_path / "crops.zarr", crops, **options)
    place = path.as_uri() if url else path.as_posix()
    cells = list(list_cells([place]))
    assert [(cell.source, cell.member, cell.index, cell.group) for cell in cells] == [
        (place, "", index, "crops") for index in range(COUNT)
    ]
    assert_pictures(cells)


def test_arrays_are_found_by_index_alone_and_from_a_base(tmp_path: Path) -> None:
    write_array(tmp_path / "crops.zarr", PICTURES, chunks=(5, HEIGHT, WIDTH, 3))
    assert (read_image(Cell("crops.zarr", "", 7, ""), tmp_path) == PICTURES[7]).all()
    with pytest.raises(ImageError, match="holds only 12 crops"):
        read_image(Cell("crops.zarr", "", 12, ""), tmp_path)


def test_lost_and_damaged_chunks_are_rows(tmp_path: Path) -> None:
    codecs = {"compressors": [BloscCodec(cname="lz4"), Crc32cCodec()]}
    path = write_array(tmp_path / "a.zarr", PICTURES, chunks=(3, HEIGHT, WIDTH, 3), **codecs)
    (path / "c/1/0/0/0").unlink()
    chunk = path / "c/2/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    found = reasons(list_cells([path]))
    assert [bool(reason) for reason in found] == [False] * 3 + [True] * 6 + [False] * 3
    assert "a chunk is missing" in found[3]
    assert "damaged" in found[6]


def test_a_lost_chunk_is_known_also_where_nothing_says_what_fills_it(tmp_path: Path) -> None:
    options = {"chunks": (3, HEIGHT, WIDTH, 3), "zarr_format": 2, "fill_value": None}
    path = write_array(tmp_path / "a.zarr", PICTURES, **options)
    (path / "1.0.0.0").unlink()
    found = reasons(list_cells([path]))
    assert [bool(reason) for reason in found] == [False] * 3 + [True] * 3 + [False] * 6


def test_a_damaged_shard_costs_its_own_crops_only(tmp_path: Path) -> None:
    options = ARRAYS["sharded"][1]
    path = write_array(tmp_path / "a.zarr", PICTURES, **options)
    (path / "c/1/0/0/0").write_bytes(b"no shard")
    assert [bool(reason) for reason in reasons(list_cells([path]))] == [False] * 6 + [True] * 6


def test_arrays_may_have_either_order_of_bytes(tmp_path: Path) -> None:
    deep = PICTURES.astype(">u2") * 257
    found = []
    for order in "<>":
        path = tmp_path / f"{order}.zarr"
        zarr.create_array(path, data=deep.astype(f"{order}u2"), zarr_format=2)
        found.append(read_all(list_cells([path])))
    np.testing.assert_array_equal(*found)
    assert found[0][0].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((4, 40, 50, 3), "float32", "holds float32"),
        ((4, 40, 50, 7), "uint8", "has the shape"),
        ((40, 50), "uint8", "has the shape"),
        ((40, 50, 3), "uint8", "is one image; an array of crops has"),
        ((0, 40, 50, 3), "uint8", "holds no crops"),
        ((4, 30_000, 30_000), "uint8", "an image of 30000 x 30000 pixels is too large"),
        ((4, 3, 5_000, 9_000), "uint16", "9000 x 5000 pixels of 6 bytes each is too large"),
    ],
)
def test_arrays_that_are_no_crops_are_named(
    shape: tuple[int, ...], dtype: str, reason: str, tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype=dtype, chunks=(1, *shape[1:]))
    with pytest.raises(InputError, match=rf"a\.zarr.*{reason}"):
        list(list_cells([tmp_path / "a.zarr"]))


def test_groups_and_broken_stores_are_named(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("left", shape=(2, 40, 50, 3), dtype="uint8")
    with pytest.raises(
        InputError, match=r"is a group; give one of its arrays, such as .*g\.zarr/left"
    ):
        list(list_cells([tmp_path / "g.zarr"]))
    assert len(list(list_cells([tmp_path / "g.zarr" / "left"]))) == 2
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.zarr: this zarr store cannot be opened"):
        list(list_cells([tmp_path / "b.zarr"]))


def test_archives_inside_folders_are_pointed_at(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", members(2))
    write_tar(tmp_path / "b.tar", members(2))
    write_tar(tmp_path / "c.tar.gz", members(2), "w:gz")
    write_table(tmp_path / "d.parquet", pd.DataFrame({"path": ["a.png"]}))
    (tmp_path / "e.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + 99 * b"x")
    (tmp_path / "f.exe").write_bytes(b"MZ" + 99 * b"x" + (tmp_path / "a.zip").read_bytes())
    found = reasons(list_cells([tmp_path]))
    own = "give it as a separate input to classify its images"
    assert found[:2] == [f"this is a ZIP archive; {own}", f"this is a TAR archive; {own}"]
    assert found[2].startswith("this is a compressed file; unpack it, or if it is a TAR archive")
    assert found[3] == f"this is a Parquet table; {own}"
    assert found[4] == "7z archives cannot be read; unpack it, or convert it to ZIP or TAR"
    assert found[5].endswith("contains a ZIP archive; unpack it, or convert it to ZIP or TAR")
    nested = write_zip(tmp_path / "nested.zip", [("inner.zip", (tmp_path / "a.zip").read_bytes())])
    assert reasons(list_cells([nested])) == found[:1]


def test_stores_inside_folders_are_pointed_at(tmp_path: Path) -> None:
    write_array(tmp_path / "in" / "a.zarr", PICTURES, chunks=(5, HEIGHT, WIDTH, 3))
    (reason,) = reasons(list_cells([tmp_path / "in"]))
    assert "zarr store; give it as a separate input" in reason


# --- tables


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Two fields of 80 x 100 pixels with four pictures each."""
    (tmp_path / "fields").mkdir()
    for field in range(2):
        four = PICTURES[4 * field : 4 * field + 4]
        image = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        (tmp_path / "fields" / f"{field}.png").write_bytes(png(image))
    return tmp_path


def boxes() -> pd.DataFrame:
    """A box inside each picture; with its room it is the picture."""
    assert Box(ROOM, ROOM, WIDTH - 2 * ROOM, HEIGHT - 2 * ROOM).with_room() == Box(
        0, 0, WIDTH, HEIGHT
    )
    rows = [
        (
            f"fields/{n // 4}.png",
            n % 2 * WIDTH + ROOM,
            n // 2 % 2 * HEIGHT + ROOM,
            WIDTH - 2 * ROOM,
            HEIGHT - 2 * ROOM,
        )
        for n in range(8)
    ]
    return pd.DataFrame(rows, columns=["path", "x", "y", "width", "height"])


def write_table(path: Path, table: pd.DataFrame, **options: object) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, **options)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "semicolon.csv", "mark.csv"])
def test_boxes_of_fields_are_cells(name: str, fields: Path) -> None:
    options: dict = {"t.tsv": {"sep": "\t"}, "semicolon.csv": {"sep": ";"}}.get(name, {})
    options |= {"encoding": "utf-8-sig"} if name == "mark.csv" else {}
    path = write_table(fields / name, boxes(), **options)
    cells = list(list_cells([path]))
    assert [(cell.source, cell.member, cell.index) for cell in cells] == [
        (path.as_posix(), f"fields/{n // 4}.png", n) for n in range(8)
    ]
    assert cells[5].box is not None
    assert (cells[5].box.x, cells[5].box.y) == (WIDTH + ROOM, ROOM)
    assert {cell.group for cell in cells} == {"fields"}
    assert_pictures(cells, PICTURES[:8])


def test_tables_of_paths_name_groups_and_labels(tmp_path: Path) -> None:
    for name, data in members():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    names = [name for name, _ in members()]
    table = pd.DataFrame({"File": names, "Label": ["monocyte"] * 12, "patient": ["p1", "p2"] * 6})
    path = write_table(tmp_path / "t.csv", table)
    cells = list(list_cells([path]))
    assert_pictures(cells)
    assert {cell.given_label for cell in cells} == {"monocyte"}
    assert [cell.group for cell in cells[:2]] == ["slide-0", "slide-1"]
    assert [c.group for c in list_cells([path], "patient")][:2] == ["p1", "p2"]
    grouped = write_table(tmp_path / "g.csv", table.rename(columns={"patient": "group"}))
    assert [c.group for c in list_cells([grouped])][:2] == ["p1", "p2"]
    assert [c.group for c in list_cells([grouped], "parent")][:2] == ["slide-0", "slide-1"]


def test_columns_may_have_parentheses_in_their_names(tmp_path: Path) -> None:
    columns = {"path": ["a/slide-1/1.png", "a/slide-2/2.png"], "Patient (ID)": ["p1", "p2"]}
    path = write_table(tmp_path / "t.csv", pd.DataFrame(columns | {"slide-(.)": ["x", "y"]}))
    assert [cell.group for cell in list_cells([path], "Patient (ID)")] == ["p1", "p2"]
    assert [cell.group for cell in list_cells([path], "slide-(.)")] == ["x", "y"]
    assert [cell.group for cell in list_cells([path], "slide-([0-9])")] == ["1", "2"]


def test_columns_of_pictures_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(PICTURES[0]))
    pictures = pa.array([{"bytes": b"x" * 999, "path": None}])
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": pictures, "note": pictures}), path)
    with pytest.raises(
        InputError, match=r"column image of .*train\.parquet holds struct.* instead of paths"
    ):
        list(list_cells([path]))
    names = pa.array(["1.png"]).dictionary_encode()
    pq.write_table(pa.table({"image": pictures, "image_path": names}), path)
    assert_pictures(list(list_cells([path])), PICTURES[:1])


@pytest.mark.parametrize(
    "text",
    [
        "\n\npath,group\n1.png,g\n",
        "sep=;\r\npath;group\r\n1.png;g\r\n",
        '"path\n",group\n1.png,g\n,\n',
    ],
)
def test_spreadsheets_put_things_before_the_names_of_columns(text: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(PICTURES[0]))
    (tmp_path / "t.csv").write_text(text, newline="")
    cell = next(list_cells([tmp_path / "t.csv"]))
    assert (cell.member, cell.index, cell.group) == ("1.png", 0, "g")


def test_whole_numbers_name_groups_as_such(tmp_path: Path) -> None:
    group = [1.0, None, 2.5, float("nan"), 1e300]
    columns = {"path": 5 * ["1.png"], "group": pa.array(group)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    cells = list_cells([tmp_path / "t.parquet"])
    assert [cell.group for cell in cells] == ["1", "", "2.5", "", "1e+300"]


def test_rows_that_lead_nowhere_say_so(fields: Path) -> None:
    table = boxes().astype(object)
    table.loc[1, "path"] = "fields/none.png"
    table.loc[8, "path"] = 300 * "x"
    table.loc[9, "path"] = "fields/\0.png"
    table.loc[2, ["x", "y"]] = 1000
    table.loc[3, "width"] = 0
    table.loc[4, "x"] = "left"
    table.loc[5, "path"] = None
    table.loc[6, ["x", "y"]] = -2  # over the edge: what is there, with its room, is the crop
    found = read_all(list_cells([write_table(fields / "t.csv", table)]))
    shown = [one if isinstance(one, str) else one.shape for one in found]
    assert shown[0] == (HEIGHT, WIDTH, 3)
    assert "no file fields/none.png" in shown[1]
    assert "lies outside fields/0.png, which has 100 x 80 pixels" in shown[2]
    assert "is empty" in shown[3]
    assert "not numbers" in shown[4]
    assert "does not name a file" in shown[5]
    assert shown[6] == (HEIGHT - ROOM - 2, WIDTH - ROOM - 2, 3)
    assert shown[7] == (HEIGHT, WIDTH, 3)
    assert shown[8] == "the file cannot be opened (file name too long)"
    assert shown[9] == "the file cannot be opened (no file can have this name)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("path\n", "holds no rows"),
        ("a,b\n1,2\n", "does not name a column of paths"),
        ("cells/1.png\ncells/2.png\n", "does not name a column of paths"),
        ("path,x,y\na.png,1,2\n", "has only x, y of the columns x, y, width, height"),
        ("path,group\na.png,g\n\nb.png,1,5\n", "has more cells than the 2 columns"),
        ('path,group\na.png,g\n"b.png,g\nc.png,g\n', "cannot be read"),
        ('path,group\n"a.png,g\nb.png,"g"\n', "cannot be read"),
        ("path\tgroup\n".encode("utf-16").decode("latin-1"), "save it as CSV, UTF-8"),
    ],
)
def test_tables_that_cannot_be_used_are_named(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"t\.csv.*{reason}"):
        list(list_cells([tmp_path / "t.csv"]))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"t\.parquet cannot be read as a Parquet table"):
        list(list_cells([tmp_path / "t.parquet"]))


def test_a_table_that_goes_before_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("path\na.png\n")
    opened = tables._open_csv

    def then_gone(path: Path) -> tables._Table:
        table = opened(path)
        path.unlink()
        return table

    monkeypatch.setattr(tables, "_open_csv", then_gone)
    with pytest.raises(InputError, match=r"t\.csv: there is no such file"):
        list(list_cells([tmp_path / "t.csv"]))


# --- standard input, mixtures, groups


@pytest.mark.parametrize("way", ["sc::1", "./sc::1"])
def test_a_folder_with_colons_is_no_url(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sc::1").mkdir()
    for name, data in members(2):
        Path("sc::1", Path(name).name).write_bytes(data)
    cells = list(list_cells([way]))
    assert {cell.source for cell in cells} == {"sc::1"}
    assert_pictures(cells, PICTURES[:2])
    assert is_url("simplecache::s3://bucket/x.zarr")
    assert is_url("zip::/x.zip")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_paths_on_standard_input(end: bytes, tmp_path: Path) -> None:
    for name, data in members():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    write_zip(tmp_path / "a.zip", members(3))
    lines = [str(tmp_path / name) for name, _ in members()]
    os.mkfifo(tmp_path / "pipe.csv")  # opening it would wait for ever
    odd = ["gone.png", "gone.csv", "pipe.csv", 300 * "x"]
    lines += [*(str(tmp_path / name) for name in odd), str(tmp_path / "a.zip")]
    stream = io.BytesIO(end.join(os.fsencode(line) for line in lines) + end)
    with stdin_kept(["-"], stream) as kept:
        assert isinstance(kept[0], PathList)
        cells = list(list_cells(kept))
        assert cells == list(list_cells(kept))  # a run lists its cells twice
    assert_pictures(cells[:12])
    assert {cell.group for cell in cells[:12]} == {f"{tmp_path}/slide-0", f"{tmp_path}/slide-1"}
    assert reasons(cells[12:16]) == [
        "the file is gone",
        "the file is gone",
        "this is not a regular file",
        "the file cannot be opened (file name too long)",
    ]
    assert_pictures(cells[16:], PICTURES[:3])


def test_lists_of_paths_from_windows(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.png", "b.png")]
    text = "\r\n".join([names[0], "   ", names[1], ""])
    with stdin_kept(["-"], io.BytesIO(text.encode("utf-8-sig"))) as kept:
        assert [cell.source for cell in list_cells(kept)] == names
    for encoding in ("utf-16-le", "utf-16-be"):
        stream = io.BytesIO(("\ufeff" + text).encode(encoding))
        with (
            stdin_kept(["-"], stream) as kept,
            pytest.raises(InputError, match="in UTF-16; write them in UTF-8"),
        ):
            list(list_cells(kept))


def test_a_list_in_the_code_page_of_a_windows_terminal_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(  # as it is there
        "wbc_batch.sources.stdin.fsdecode", lambda name: name.decode("utf-8", "surrogatepass")
    )
    listed = "Färbung.png\n".encode("cp850")
    with (
        stdin_kept(["-"], io.BytesIO(listed)) as kept,
        pytest.raises(InputError, match="on standard input are not UTF-8; write them in UTF-8"),
    ):
        list(list_cells(kept))


def test_standard_input_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        stdin_kept(["-"], io.BytesIO(b"\n")) as kept,
        pytest.raises(InputError, match="no paths came on standard input"),
    ):
        list(list_cells(kept))
    with pytest.raises(InputError, match="twice"), stdin_kept(["-", "-"], io.BytesIO(b"")):
        pass
    monkeypatch.setattr("sys.stdin", None)  # as it is where somebody closed it
    with stdin_kept(["-"]) as kept, pytest.raises(InputError, match="no paths came on standard"):
        list(list_cells(kept))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(IncompleteRunError, match="TMPDIR"), stdin_kept(["-"]):
        pass


@pytest.mark.parametrize(
    ("named", "piped", "reason"),
    [
        ([], "a/1.png\nb\na/../a/1.png", r"a/\.\./a/1\.png was given twice; its cells"),
        ([], "s3://b/x.zarr\ns3://b/x.zarr/", "x.zarr/ was given twice"),
        ([], "a/1.png\nb\na", r"a/1\.png lies inside a, which was also given"),
        (["a"], "b\na/", "a/ was given twice"),
        (["a"], "b\na/1.png", r"a/1\.png lies inside a,"),
    ],
)
def test_paths_on_standard_input_are_counted_once(
    named: list[str], piped: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("a/1.png", "a/2.png", "b/1.png"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).touch()
    with stdin_kept(["-"], io.BytesIO(b"a/1.png\na/2.png\nb")) as kept:
        assert len(list(list_cells(kept))) == 3
    with (
        stdin_kept([*named, "-"], io.BytesIO(piped.encode())) as kept,
        pytest.raises(InputError, match=reason),
    ):
        next(list_cells(kept))


@pytest.fixture
def mixture(fields: Path) -> list[Path]:
    """One input of each kind."""
    for name, data in members():
        path = fields / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    tifffile.imwrite(fields / "stack.tif", PICTURES, photometric="rgb")
    return [
        fields / "folder",
        write_zip(fields / "a.zip", members()),
        write_tar(fields / "b.tar", members()),
        write_array(fields / "c.zarr", PICTURES, chunks=(5, HEIGHT, WIDTH, 3)),
        fields / "stack.tif",
        write_table(fields / "t.csv", boxes()),
        fields / "fields" / "0.png",
    ]


def test_kinds_mix(mixture: list[Path]) -> None:
    cells = list(list_cells(mixture))
    assert len(cells) == 5 * COUNT + 8 + 1
    assert not any(reasons(cells))
    assert len({cell.cell_id for cell in cells}) == len(cells)
    groups = list(dict.fromkeys(cell.group for cell in cells))
    assert groups == [
        *(f"{name}/slide-{n}" for name in ("folder", "a", "b") for n in (0, 1)),
        "c",
        "stack",
        "fields",
    ]


def test_grouping_rules(mixture: list[Path]) -> None:
    sources = {cell.group for cell in list_cells(mixture, "source")}
    assert sources == {path.as_posix() for path in mixture}
    numbers = [cell.group for cell in list_cells(mixture[:3], r"/slide-(\d)/")]
    assert numbers[:4] == ["0"] * 4
    assert set(numbers) == {"0", "1"}
    paths = {cell.group for cell in list_cells([mixture[5]], "path")}
    assert paths == {"fields/0.png", "fields/1.png"}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("(slide", "is not a valid regular expression"),
        ("(a{99999999999})", "is not a valid regular expression"),
        (3000 * "(" + 3000 * ")", "is not a valid regular expression"),
        ("(?:slide)", "has no group"),
        ("/(patient-[0-9]+)/", "finds no group in"),
        ("patient", "patient: .*folder is not a table"),
    ],
)
def test_rules_that_make_no_sense_are_named(rule: str, reason: str, mixture: list[Path]) -> None:
    with pytest.raises(InputError, match=reason):
        list(list_cells(mixture[:1], rule))


def test_listing_opens_nothing_it_does_not_need(mixture: list[Path]) -> None:
    (mixture[0] / "zz").symlink_to(
        mixture[0]
    )  # found at the end, so nothing before may wait for it
    stream = list_cells(mixture)
    firsts = [next(stream) for _ in range(3)]
    assert all(a.member < b.member for a, b in pairwise(firsts))


#: What reads the pictures of each kind.
DOORS = {
    "slides": "pathlib.Path.read_bytes",
    "a.zip": "zipfile.ZipFile.read",
    "a.tar": "tarfile.TarInfo.fromtarfile",
    "a.tar.gz": "tarfile.TarInfo.fromtarfile",
    "a.tif": "tifffile.FileHandle.read",
    "a.zarr": "zarr.storage._local._get",
}


def write_kind(path: Path) -> Path:
    """Write the pictures as what the name says."""
    if path.suffix == ".zip":
        return write_zip(path, members())
    if path.suffix in (".tar", ".gz"):
        return write_tar(path, members(), "w:gz" if path.suffix == ".gz" else "w")
    if path.suffix == ".tif":
        tifffile.imwrite(path, PICTURES, photometric="rgb")
        return path
    if path.suffix == ".zarr":
        return write_array(path, PICTURES, chunks=(5, HEIGHT, WIDTH, 3))
    path.mkdir()
    for number, picture in enumerate(PICTURES):
        (path / f"{number:02d}.png").write_bytes(png(picture))
    return path


@pytest.mark.parametrize("kind", DOORS)
def test_what_says_nothing_of_a_file_is_no_damage(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = list(list_cells([write_kind(tmp_path / kind)]))

    def failing(number: int) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    for number in (errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT):
        reader = CellReader()
        with monkeypatch.context() as patch:
            patch.setattr(DOORS[kind], failing(number))
            sentence = f"{kind}.* cannot be read for now: {os.strerror(number).lower()}"
            with pytest.raises(UnreachableError, match=sentence):
                [attempt_read(read) for read in readers(cells)]
            with pytest.raises(ImageError, match=sentence):  # as the plugin reads
                reader.read(cells[5])
        assert_pictures(cells)
        assert (reader.read(cells[5]) == PICTURES[5]).all()
    monkeypatch.setattr(DOORS[kind], failing(errno.EIO))  # a bad sector
    assert all(isinstance(attempt_read(read), ImageError) for read in readers(cells))


def test_an_archive_that_went_stale_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = list(list_cells([write_zip(tmp_path / "a.zip", members())]))
    read, opened = zipfile.ZipFile.read, []

    def stale_once(self: zipfile.ZipFile, *arguments: object) -> bytes:
        opened.append(self)
        if self is opened[0]:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(self, *arguments)

    monkeypatch.setattr(zipfile.ZipFile, "read", stale_once)
    with pytest.raises(UnreachableError, match="stale file handle"):
        read_image(cells[3])
    assert_pictures(cells)


@pytest.mark.parametrize("kind", ["slides", "a.zip", "a.tar", "a.tif", "a.zarr"])
def test_an_input_that_cannot_be_looked_at_for_now_is_not_listed_as_something_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kind(tmp_path / kind)
    cells = list(list_cells([path]))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    for name in ("os.stat", {"slides": "os.scandir", "a.zarr": "os.stat"}.get(kind, "io.open")):
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            with pytest.raises(UnreachableError, match=f"{kind} cannot be read for now") as caught:
                list(list_cells([path]))
        assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert list(list_cells([path])) == cells


def test_what_cells_share_is_loaded_once_and_not_all_at_once() -> None:
    loaded: list[int] = []

    def load(key: int) -> int:
        loaded.append(key)
        if key == 50:
            raise ImageError("damaged")
        return key

    shared = LoadedAhead(load)
    ways = [shared.get(number // 3) for number in range(300)]  # all asked for ahead
    assert loaded == []
    for number, way in enumerate(ways):
        if number // 3 == 50:
            with pytest.raises(ImageError, match="damaged"):
                way()
        else:
            assert way() == number // 3
        assert len(loaded) <= number // 3 + 3
    assert sorted(loaded) == list(range(100))
