"""Listing and reading cells from folders."""

import inspect
import io
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from wbc_batch.errors import ImageError, InputError
from wbc_batch.sources import Box, Cell, decode, list_cells, read_image, torchvision_decoder
from wbc_batch.sources.images import crop_size
from wbc_batch.sources.inputs import check_inputs, input_around


def picture(height: int = 40, width: int = 50) -> np.ndarray:
    """A smooth coloured picture, so that lossy formats stay close to it."""
    colours = np.random.default_rng(1).integers(30, 255, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, pixels, **options)
    return sink.getvalue()


def png(pixels: np.ndarray) -> bytes:
    swapped = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", swapped)[1].tobytes()


def deep(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


def read(data: bytes, folder: Path) -> np.ndarray:
    (folder / "crop").write_bytes(data)
    return read_image(Cell(str(folder), "crop", None, ""))


PICTURE = picture()
GREY = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
OPAQUE = np.dstack([PICTURE, np.full(GREY.shape, 255, np.uint8)])

COLOUR_FILES = {
    "jpeg": encoded(PICTURE, "JPEG", quality=100, subsampling=0),
    "progressive jpeg": encoded(PICTURE, "JPEG", quality=100, subsampling=0, progressive=True),
    "cmyk jpeg": encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=100),
    "png": encoded(PICTURE, "PNG"),
    "png with opacity": encoded(OPAQUE, "PNG"),
    "16-bit png": png(deep(PICTURE)),
    "16-bit png with opacity": png(deep(OPAQUE)),
    "bmp": encoded(PICTURE, "BMP"),
    "webp": encoded(PICTURE, "WEBP", lossless=True),
    "tiff": encoded(PICTURE, "TIFF"),
    "lzw tiff": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "deflate tiff": encoded(PICTURE, "TIFF", compression="tiff_deflate"),
    "planar tiff": tiff(np.moveaxis(PICTURE, 2, 0).copy(), photometric="rgb", planarconfig=2),
    "16-bit tiff": tiff(deep(PICTURE), photometric="rgb"),
    "16-bit planar tiff": tiff(
        np.moveaxis(deep(PICTURE), 2, 0).copy(), photometric="rgb", planarconfig=2
    ),
    "16-bit deflate tiff": tiff(deep(PICTURE), photometric="rgb", compression="zlib"),
    "big tiff": tiff(PICTURE, photometric="rgb", bigtiff=True),
}

GREY_FILES = {
    "grey jpeg": encoded(GREY, "JPEG", quality=100),
    "grey png": encoded(GREY, "PNG"),
    "grey png with opacity": encoded(Image.fromarray(GREY).convert("LA"), "PNG"),
    "16-bit grey png": png(deep(GREY)),
    "grey tiff": encoded(GREY, "TIFF"),
    "16-bit grey tiff": tiff(deep(GREY)),
    "16-bit inverted tiff": tiff(65535 - deep(GREY), photometric="miniswhite"),
    "gif": encoded(GREY, "GIF"),
}


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_colour_formats_give_the_same_picture(kind: str, tmp_path: Path) -> None:
    pixels = read(COLOUR_FILES[kind], tmp_path)
    brightest = PICTURE.max() if "16-bit" in kind else 255
    expected = PICTURE.astype(float) * 255 / brightest
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - expected).mean() < (3 if "jpeg" in kind else 1)


@pytest.mark.parametrize("kind", GREY_FILES)
def test_grey_formats_give_three_equal_channels(kind: str, tmp_path: Path) -> None:
    pixels = read(GREY_FILES[kind], tmp_path)
    brightest = GREY.max() if "16-bit" in kind else 255
    assert pixels.shape == (*GREY.shape, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0] - GREY.astype(float) * 255 / brightest).mean() < 1


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_torchvision_and_its_library_alone_decode_alike(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(data, kind)
    torchvision_decoder.torchvision_decoder.cache_clear()
    alone = decode(data.getvalue())
    monkeypatch.setattr(torchvision_decoder, "find_spec", lambda _: None)
    torchvision_decoder.torchvision_decoder.cache_clear()
    whole = decode(data.getvalue())
    torchvision_decoder.torchvision_decoder.cache_clear()
    np.testing.assert_array_equal(alone, whole)


def test_transparency_shows_white(tmp_path: Path) -> None:
    clear = OPAQUE.copy()
    clear[:20, :, 3] = 0
    pixels = read(encoded(clear, "PNG"), tmp_path)
    assert (pixels[:20] == 255).all()
    assert (pixels[20:] == PICTURE[20:]).all()


def with_clear_colour(data: bytes, *colour: int) -> bytes:
    """Put a chunk tRNS, which names the transparent colour, behind IHDR."""
    chunk = b"tRNS" + struct.pack(f">{len(colour)}H", *colour)
    end = 8 + 12 + 13
    crc = struct.pack(">I", zlib.crc32(chunk))
    return data[:end] + struct.pack(">I", 2 * len(colour)) + chunk + crc + data[end:]


@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize("grey", [True, False])
def test_the_transparent_colour_of_a_png_shows_white(
    grey: bool, scale: int, tmp_path: Path
) -> None:
    pixels = (GREY if grey else PICTURE).astype(np.uint16 if scale > 1 else np.uint8) * scale
    pixels[0, :2] = 5 * scale
    pixels[1, 0] = 255 * scale
    colour = [5 * scale] if grey else [5 * scale] * 3
    expected = read(png(pixels), tmp_path)
    assert (expected[0, 0] == 5).all()
    expected[0, :2] = 255
    assert (read(with_clear_colour(png(pixels), *colour), tmp_path) == expected).all()


def test_the_transparent_colour_may_have_few_bits(tmp_path: Path) -> None:
    black = Image.new("1", (40, 40), 1)
    black.putpixel((0, 0), 0)
    pixels = read(with_clear_colour(encoded(black, "PNG"), 1), tmp_path)
    assert (pixels[0, 0] == 0).all()
    assert (pixels[1:] == 255).all()
    assert (read(with_clear_colour(encoded(black, "PNG"), 0), tmp_path) == 255).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = COLOUR_FILES[kind]
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (1023, 1400, (1023, 1400)),
        (1025, 1031, (513, 516)),
        (2049, 4000, (513, 1000)),
        (4096, 4096, (512, 512)),
    ],
)
@pytest.mark.parametrize("colours", ["RGB", "L"])
def test_large_jpeg_crops_are_decoded_smaller(
    height: int, width: int, shape: tuple[int, int], colours: str, tmp_path: Path
) -> None:
    whole = Image.fromarray(PICTURE).resize((width, height)).convert(colours)
    pixels = read(encoded(np.asarray(whole), "JPEG", quality=95), tmp_path)
    assert pixels.shape == (*shape, 3)
    expected = np.asarray(whole.convert("RGB").resize(shape[::-1], Image.Resampling.BOX), float)
    assert np.abs(pixels - expected).mean() < 3


def test_a_box_is_cut_from_a_jpeg_of_full_size(tmp_path: Path) -> None:
    left = np.zeros((1100, 1200, 3), np.uint8)
    left[:, 600:] = 255
    (tmp_path / "field.jpg").write_bytes(encoded(left, "JPEG", quality=95))
    (tmp_path / "cells.csv").write_text("path,x,y,width,height\nfield.jpg,560,1000,80,60\n")
    (cell,) = list_cells([tmp_path / "cells.csv"])
    pixels = read_image(cell)
    assert pixels.shape == (12 + 60 + 12, 12 + 80 + 12, 3)  # 15 % of the longer side around it
    assert pixels[:, : 12 + 30].max() < 50
    assert pixels[:, 12 + 50 :].min() > 200


def test_numbers_of_boxes_may_have_a_comma_between_semicolons(tmp_path: Path) -> None:
    rows = ("a.png;10,4;20,6;30;40", "a.png;10.4;20.6;30;40", "a.png;10,4,1;20;30;40", "a.png;10,4")
    (tmp_path / "cells.csv").write_text("\n".join(("path;x;y;width;height", *rows)))
    cells = list_cells([tmp_path / "cells.csv"])
    assert [cell.box for cell in cells] == [Box(10, 21, 30, 40)] * 2 + [Box(0, 0, 0, 0)] * 2
    (tmp_path / "cells.csv").write_text('path,x,y,width,height\na.png,"1,024",20,30,40\n')
    (cell,) = list_cells([tmp_path / "cells.csv"])
    assert cell.box == Box(0, 0, 0, 0)  # it may well be a thousand


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_large_crops_are_refused(share: float, tmp_path: Path) -> None:
    data = encoded(np.asarray(Image.fromarray(PICTURE).resize((1500, 1100))), "JPEG")
    with pytest.raises(ImageError, match="truncated or damaged"):
        read(data[: int(len(data) * share)], tmp_path)


ONE_CROP_TIFFS: dict[str, tuple[np.ndarray, dict]] = {
    "ome planes": (
        np.moveaxis(PICTURE, 2, 0),
        {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}},
    ),
    "imagej planes": (np.moveaxis(PICTURE, 2, 0), {"imagej": True, "metadata": {"axes": "CYX"}}),
}


@pytest.mark.parametrize("kind", [*ONE_CROP_TIFFS, "thumbnail"])
def test_a_tiff_of_one_crop_may_have_several_pages(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "crop.tif"
    path.parent.mkdir()
    if kind == "thumbnail":
        with tifffile.TiffWriter(path) as writer:
            writer.write(PICTURE, photometric="rgb", metadata=None)
            writer.write(PICTURE[::4, ::4].copy(), photometric="rgb", metadata=None, subfiletype=1)
    else:
        data, options = ONE_CROP_TIFFS[kind]
        tifffile.imwrite(path, data, **options)
    for named in (path, path.parent):  # both ways it is one cell
        (cell,) = list_cells([named])
        assert (read_image(cell) == PICTURE).all()
    assert crop_size(path.read_bytes()) == GREY.shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep_grey", [False, True])
def test_orientation_is_ignored(orientation: int, deep_grey: bool) -> None:
    pixels = deep(GREY) if deep_grey else PICTURE
    data = tiff(pixels, extratags=[(274, "H", 1, orientation, True)])
    assert (decode(data) == (pixels[..., np.newaxis] if deep_grey else pixels)).all()
    assert crop_size(data) == GREY.shape


def test_a_cameras_preview_is_no_second_image(tmp_path: Path) -> None:
    large = Image.fromarray(PICTURE).resize((1200, 1100))
    preview = Image.fromarray(PICTURE)
    data = encoded(large, "MPO", save_all=True, append_images=[preview])
    assert data.startswith(b"\xff\xd8\xff")
    assert read(data, tmp_path).shape == (550, 600, 3)


@pytest.mark.parametrize("compression", ["jpeg2000", "webp", "jpegxl", "lerc"])
def test_compressions_of_tiff_are_the_same_in_8_bits_as_in_16(compression: str) -> None:
    data = tiff(PICTURE, photometric="rgb", compression=compression)
    assert (decode(data) == PICTURE).all()
    for share in (0.3, 0.6, 0.99):
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode(data[: int(len(data) * share)])


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def huge_png() -> bytes:
    data = bytearray(encoded(PICTURE, "PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    return bytes(data)


def deep_png(width: int, height: int) -> bytes:
    data = bytearray(png(deep(OPAQUE)))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


def huge_tiff() -> bytes:
    data = bytearray(tiff(deep(PICTURE), photometric="rgb", byteorder="<"))
    for tag, side in ((256, 9000), (257, 5000)):
        at = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[at : at + 4] = struct.pack("<I", side)
    return bytes(data)


def many_samples() -> bytes:
    return tiff(deep(np.dstack([PICTURE] * 10)), photometric="minisblack", planarconfig="contig")


def huge_jpeg() -> bytes:
    data = bytearray(encoded(PICTURE, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"patient,cell\n1,2\n", "not a JPEG"),
        *((animated(kind), "holds 2 frames; only one image") for kind in ("PNG", "GIF", "WEBP")),
        (b"%PDF-1.7\n", "not a JPEG"),
        (np.random.default_rng(0).bytes(5000), "not a JPEG"),
        (b"\xff\xd8\xff", "truncated or damaged"),
        (b"RIFF\0\0\0\0WAVEfmt ", "truncated or damaged"),
        (tiff(np.stack([PICTURE] * 3), photometric="rgb"), "3 pages"),
        (tiff(PICTURE.astype(np.float32), photometric="rgb"), "float32"),
        (encoded(PICTURE[:4, :4], "PNG"), "too small"),
        (huge_png(), "60000 x 60000 pixels is too large"),
        (huge_jpeg(), "60000 x 60000 pixels is too large"),
        (deep_png(8000, 8000), r"8000 x 8000 pixels of 8 bytes each.* 33 million of these"),
        (deep_png(5000, 5000), "PNG data are truncated"),
        (huge_tiff(), r"9000 x 5000 pixels of 6 bytes each is too large .* 44 million"),
        (many_samples(), "30 samples per pixel cannot be read"),
    ],
)
def test_reasons_are_plain(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read(data, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_what_is_too_large_to_read_is_too_large_to_measure() -> None:
    for data in (deep_png(8000, 8000), huge_tiff()):
        with pytest.raises(ImageError, match="too large"):
            crop_size(data)


@pytest.mark.parametrize("kind", ["png with opacity", "16-bit png", "16-bit png with opacity"])
def test_a_large_image_is_not_held_many_times(kind: str, tmp_path: Path) -> None:
    small = cv2.imdecode(np.frombuffer(COLOUR_FILES[kind], np.uint8), cv2.IMREAD_UNCHANGED)
    data = cv2.imencode(".png", np.tile(small, (40, 40, 1)))[1].tobytes()
    tracemalloc.start()
    pixels = read(data, tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (pixels == np.tile(read(COLOUR_FILES[kind], tmp_path), (40, 40, 1))).all()
    assert most < 8 * pixels.size


def test_things_that_are_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    members = [cell.member for cell in list_cells([tmp_path])]
    assert members == ["circle.png", "dangling.png", "pipe.png"]
    reasons = {"circle.png": "cannot be opened", "dangling.png": "link", "pipe.png": "regular"}
    for member, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            read_image(Cell(str(tmp_path), member, None, ""))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_forbidden_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(PICTURE, "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(Cell(str(path), "", None, ""))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "smears"
    for member in (
        "b/2.png",
        "b/10.png",
        "a/z.jpg",
        "a/deeper/x.bmp",
        "top.tif",
        "a/notes.txt",
        "a/.hidden.png",
        ".cache/x.png",
        "b/Thumbs.db",
        "desktop.ini",
        "Z.png",
    ):
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
        (folder / member).touch()
    return folder


def test_every_visible_file_is_listed_in_order(tree: Path) -> None:
    cells = list(list_cells([tree]))
    assert [(cell.member, cell.group) for cell in cells] == [
        ("Z.png", "smears"),
        ("a/deeper/x.bmp", "a/deeper"),
        ("a/notes.txt", "a"),
        ("a/z.jpg", "a"),
        ("b/10.png", "b"),
        ("b/2.png", "b"),
        ("top.tif", "smears"),
    ]
    assert {cell.source for cell in cells} == {tree.as_posix()}


def test_single_files_belong_to_their_folder(tree: Path) -> None:
    cells = list(list_cells([tree / "b/2.png", tree / "a"]))
    assert [(cell.member, cell.group) for cell in cells] == [
        ("", "b"),
        ("deeper/x.bmp", "a/deeper"),
        ("notes.txt", "a"),
        ("z.jpg", "a"),
    ]
    assert cells[0].source == (tree / "b/2.png").as_posix()


def test_folders_of_the_same_name_are_different_groups(tmp_path: Path) -> None:
    for member in ("2024/run/slide-1/a.png", "2025/run/slide-1/a.png", "2025/run/b.png"):
        (tmp_path / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / member).touch()
    assert [cell.group for cell in list_cells([tmp_path])] == [
        "2024/run/slide-1",
        "2025/run",
        "2025/run/slide-1",
    ]
    early, late = tmp_path / "2024" / "run", tmp_path / "2025" / "run"
    assert [cell.group for cell in list_cells([early, late])] == [
        f"{early.as_posix()}/slide-1",
        late.as_posix(),
        f"{late.as_posix()}/slide-1",
    ]


def test_identities_depend_on_the_cell_alone() -> None:
    cell = Cell("smears", "a/1.png", None, "a")
    # Frozen: tables of earlier runs are joined by it.
    assert cell.cell_id == "e205badef0f78c1a"
    assert Cell("smears", "a/1.png", None, "other").cell_id == cell.cell_id
    others = [
        Cell("smears", "a/1.pn", None, "a"),
        Cell("smears", "a/1.png", 0, "a"),
        Cell("smears/a", "1.png", None, "a"),
        Cell("smears", "a/\udcff.png", None, "a"),
    ]
    assert len({other.cell_id for other in others} | {cell.cell_id}) == 5


def test_relative_sources_start_from_the_base(tmp_path: Path) -> None:
    (tmp_path / "smear").mkdir()
    (tmp_path / "smear" / "1.png").write_bytes(encoded(PICTURE, "PNG"))
    pixels = read_image(Cell("smear", "1.png", None, "smear"), base=tmp_path)
    assert (pixels == PICTURE).all()


def test_folders_may_be_nested_deeper_than_calls(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*200 * "d")
    deepest.mkdir(parents=True)
    (deepest / "1.png").touch()
    (tmp_path / "d" / "e.png").touch()
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        members = [cell.member for cell in list_cells([tmp_path])]
    finally:
        sys.setrecursionlimit(usual)
    assert members == [200 * "d/" + "1.png", "d/e.png"]


def test_linked_folders_are_followed_but_not_in_circles(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "1.png").touch()
    (tree / "c").symlink_to(outside)
    assert "c/1.png" in [cell.member for cell in list_cells([tree])]
    (tree / "b" / "again").symlink_to(tree)
    with pytest.raises(InputError, match="link to a folder above"):
        list(list_cells([tree]))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "no input"),
        (["missing"], "no such file"),
        (["empty"], "empty holds no files"),
        (["smears", "empty"], "empty holds no files"),
        (["smears", "smears"], "twice"),
        (["smears", "smears/a"], "lies inside"),
        (["smears/Z.png", "smears"], "lies inside"),
    ],
)
def test_unusable_inputs_are_named(
    inputs: list[str], reason: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.parent / "empty").mkdir()
    monkeypatch.chdir(tree.parent)
    with pytest.raises(InputError, match=reason):
        list(list_cells(inputs))


def test_a_folder_in_upper_and_lower_case_is_one(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on macOS: both names lead to the folder, and the system tells no right one.
    monkeypatch.setattr("wbc_batch.sources.inputs.resolved", lambda path: Path(path).absolute())
    upper = tree.with_name(tree.name.upper())
    upper.symlink_to(tree)
    with pytest.raises(InputError, match="twice"):
        check_inputs([tree, upper])
    with pytest.raises(InputError, match="lies inside"):
        check_inputs([tree, upper / "a"])
    assert input_around(upper / "results" / "new", [tree]) == str(tree)
    with pytest.raises(InputError, match="twice"):
        check_inputs([tree / "Z.png", upper / "Z.png"])


def test_on_windows_a_file_with_a_long_path_may_be_there(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_batch.names._ON_WINDOWS", True)
    with pytest.raises(ImageError, match=r"the file is gone$"):
        read_image(Cell(str(tree), "gone.png", None, ""))
    deep = "/".join(10 * ["a-folder-in-a-folder-in-a"])
    with pytest.raises(ImageError, match="its path is too long for Windows"):
        read_image(Cell(str(tree), f"{deep}/gone.png", None, ""))


def test_two_names_of_one_file_are_two_inputs(tree: Path) -> None:
    (tree / "copy.png").hardlink_to(tree / "Z.png")
    check_inputs([tree / "Z.png", tree / "copy.png"])


def test_listing_streams(tree: Path) -> None:
    (tree / "zz").symlink_to(tree)  # found at the end, so nothing before may wait for it
    assert next(list_cells([tree])).member == "Z.png"
