"""A packed store: the same cells as before, in one place."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from commands import invoke
from PIL import Image
from runs import draw

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.preprocessing import CanonicalCrop, Preprocessing
from wbc_batch.errors import (
    ExitCode,
    ImageError,
    IncompleteRunError,
    InputError,
    RunError,
    UnreachableError,
)
from wbc_batch.run import classify_paths
from wbc_batch.sources import (
    Cell,
    attempt_read,
    list_cells,
    pack,
    packed,
    packed_writer,
    prepared_readers,
    read_image,
    size_limits,
)

RNG = np.random.default_rng(3)


def write_bmp(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = RNG.integers(30, 255, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height)).save(path)


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Crops of several sizes on two slides, a damaged one and a name that is not UTF-8 among them."""
    folder = tmp_path / "slides"
    for number in range(10):
        write_bmp(folder / f"slide-{number % 2}" / f"{number}.bmp", 40 + number, 60 - number)
    whole = (folder / "slide-0" / "0.bmp").read_bytes()
    (folder / "slide-1" / "damaged.bmp").write_bytes(whole[: len(whole) // 2])
    (folder / "slide-1" / "\udcff.bmp").write_bytes(whole)
    monkeypatch.chdir(tmp_path)
    return Path("slides")


def identities(cells: list[Cell]) -> list[tuple]:
    return [
        (cell.cell_id, cell.source, cell.member, cell.index, cell.group, cell.box, cell.given_label)
        for cell in cells
    ]


def outcome(cell: Cell) -> bytes | str:
    try:
        image = read_image(cell)
    except ImageError as error:
        return str(error)
    return repr(image.shape).encode() + image.tobytes()


def assert_same_cells(inputs: list[Path], store: Path, group_by: str | None = None) -> None:
    before, after = list(list_cells(inputs, group_by)), list(list_cells([store]))
    assert identities(after) == identities(before)
    assert [outcome(cell) for cell in after] == [outcome(cell) for cell in before]


@pytest.mark.parametrize("compress", [False, True])
def test_a_packed_store_holds_the_same_cells(
    compress: bool, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_writer, "_CHUNK_BYTES", 3 * 49 * 60 * 3)  # 3 crops in a chunk,
    monkeypatch.setattr(packed_writer, "_SHARD_BYTES", 6 * 49 * 60 * 3)  # 6 in a shard,
    monkeypatch.setattr(packed_writer, "_ROWS", 7)  # and 12 in a chunk of what is known of them
    seen: list[tuple[int, int]] = []
    summary = pack.pack(
        [slides], "crops.zarr", compress=compress, progress=lambda *now: seen.append(now)
    )
    assert (summary.cells, summary.errors) == (12, 1)
    assert (summary.height, summary.width) == (49, 60)
    assert seen == [(6, 12), (12, 12)]
    assert summary.rate_before > 0
    assert summary.rate_after > 0
    crops = zarr.open_group("crops.zarr", mode="r")["crops"]
    assert (crops.metadata.zarr_format, crops.chunks[0], crops.shards[0]) == (3, 3, 6)
    assert_same_cells([slides], Path("crops.zarr"))
    # And again: what a store was packed from is not forgotten.
    pack.pack(["crops.zarr"], "again.zarr")
    assert_same_cells([slides], Path("again.zarr"))


def test_large_jpeg_files_are_packed_as_they_are_classified(tmp_path: Path) -> None:
    (tmp_path / "slide").mkdir()
    for number, (height, width) in enumerate([(1033, 1024), (363, 360)]):
        small = RNG.integers(30, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height)).save(tmp_path / "slide" / f"{number}.jpg")
    summary = pack.pack([tmp_path / "slide"], tmp_path / "crops.zarr")
    assert (summary.height, summary.width, summary.errors) == (517, 512, 0)
    assert_same_cells([tmp_path / "slide"], tmp_path / "crops.zarr")


def test_groups_boxes_and_labels_are_kept(slides: Path) -> None:
    image = (slides / "slide-0" / "0.bmp").as_posix()
    Path("boxes.csv").write_text(
        "path,x,y,width,height,group,label\n"
        f"{image},2,3,20,22,patient-1,monocyte\n"
        f"{image},8,9,24,21,patient-2,\n"
        f"{image},200,3,20,22,patient-2,\n"
    )
    pack.pack([Path("boxes.csv"), slides / "slide-1"], "crops.zarr")
    assert_same_cells([Path("boxes.csv"), slides / "slide-1"], Path("crops.zarr"))
    cells = list(list_cells(["crops.zarr"], "given_label"))
    assert [cell.group for cell in cells][:2] == ["monocyte", ""]


def test_reasons_name_files_whose_names_are_not_utf8(slides: Path) -> None:
    image = (slides / "slide-0" / "0.bmp").as_posix()
    Path("t.csv").write_bytes(f"path\n{image}\n".encode() + b"zelle_\xe4.png\n")
    pack.pack(["t.csv"], "crops.zarr")
    assert_same_cells([Path("t.csv")], Path("crops.zarr"))


def test_the_grouping_of_packing_stays(slides: Path) -> None:
    rule = r"slide-(\d)"
    pack.pack([slides], "crops.zarr", group_by=rule)
    assert_same_cells([slides], Path("crops.zarr"), rule)
    assert {cell.group for cell in list_cells(["crops.zarr"])} == {"0", "1"}
    parents = {cell.group for cell in list_cells(["crops.zarr"], "parent")}
    assert parents == {"slide-0", "slide-1"}


def test_the_folders_of_cells_are_known_after_packing(slides: Path) -> None:
    for patient in ("a", "b"):
        write_bmp(Path(patient) / "slide-1" / "0.bmp", 40, 50)
    (slides / "slide-0" / "0.bmp").rename("top.bmp")
    Path("t.csv").write_text("path,group\ntop.bmp,other\n")
    stack = [np.asarray(Image.open(slides / "slide-1" / "1.bmp"))] * 2
    tifffile.imwrite("s.tif", np.stack(stack), photometric="rgb")
    inputs = [Path(name) for name in ("a", "b", "t.csv", "s.tif")]
    expected = [cell.group for cell in list_cells(inputs, "parent")]
    assert expected == ["a/slide-1", "b/slide-1", "t", "s", "s"]
    pack.pack(inputs, "crops.zarr", group_by="source")
    pack.pack(["crops.zarr"], "again.zarr")
    for store in ("crops.zarr", "again.zarr"):
        assert [cell.group for cell in list_cells([store], "parent")] == expected
    assert [cell.group for cell in list_cells(["again.zarr"])] == [
        "a",
        "b",
        "t.csv",
        *2 * ["s.tif"],
    ]
    assert [c.group for c in list_cells(["again.zarr"], "index")] == ["", "", "0", "0", "1"]


def test_a_store_that_does_not_know_folders_says_so(slides: Path) -> None:
    pack.pack([slides], "crops.zarr")
    shutil.rmtree("crops.zarr/parent")  # as an earlier version packed it
    assert_same_cells([slides], Path("crops.zarr"))
    with pytest.raises(
        InputError, match=r"crops\.zarr .* did not record the folders .* pack the cells again"
    ):
        list(list_cells(["crops.zarr"], "parent"))


def test_black_and_white_crops_are_not_taken_for_missing(tmp_path: Path) -> None:
    (tmp_path / "slide").mkdir()
    for value in (0, 255):
        Image.new("RGB", (30, 30), (value,) * 3).save(tmp_path / "slide" / f"{value}.bmp")
    pack.pack([tmp_path / "slide"], tmp_path / "crops.zarr")
    assert_same_cells([tmp_path / "slide"], tmp_path / "crops.zarr")


def test_damage_of_a_store_costs_what_it_hits(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_writer, "_CHUNK_BYTES", 3 * 49 * 60 * 3)
    monkeypatch.setattr(packed_writer, "_SHARD_BYTES", 6 * 49 * 60 * 3)
    pack.pack([slides], "crops.zarr")
    good = [outcome(cell) for cell in list_cells(["crops.zarr"])]
    shard = Path("crops.zarr/crops/c/0/0/0/0")
    data = bytearray(shard.read_bytes())
    data[100] ^= 255  # in the first chunk, which has no compression that would notice
    shard.write_bytes(data)
    Path("crops.zarr/crops/c/1/0/0/0").unlink()
    found = [outcome(cell) for cell in list_cells(["crops.zarr"])]
    assert all("damaged" in str(text) for text in found[:3])
    assert found[3:6] == good[3:6]
    assert all("missing" in str(text) for text in found[6:] if "truncated" not in str(text))

    column = next(path for path in Path("crops.zarr/member/c").iterdir())
    column.write_bytes(b"damage")
    with pytest.raises(InputError, match="damaged; pack them again"):
        list(list_cells(["crops.zarr"]))


def test_a_store_without_its_pixels_is_refused_in_a_sentence(slides: Path) -> None:
    pack.pack([slides], "crops.zarr")
    shutil.rmtree("crops.zarr/crops")  # copied by half
    result = invoke("plan", "crops.zarr", "-o", "run")
    assert result.exit_code == ExitCode.USAGE
    assert "crops.zarr: the store's pixels are missing or damaged; pack them again" in " ".join(
        result.stderr.split()
    )


def test_a_store_of_a_later_layout_is_refused_in_a_sentence(slides: Path) -> None:
    pack.pack([slides], "crops.zarr")
    zarr.open_group("crops.zarr").attrs[packed.MARK] = packed.VERSION + 1
    result = invoke("plan", "crops.zarr", "-o", "run")
    assert result.exit_code == ExitCode.USAGE
    said = " ".join(result.stderr.split())
    assert "crops.zarr: this store was packed by a later version" in said
    assert "update wbc-napari" in said


@pytest.mark.parametrize("prepare", [False, True])
def test_decoders_do_not_talk(
    prepare: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture,
) -> None:
    folder = tmp_path / "slide"
    write_bmp(folder / "1.bmp", 40, 40)
    tifffile.imwrite(folder / "cut.tif", np.zeros((40, 40), np.uint8))
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:200])
    Image.new("1", (10_000, 9_000)).save(folder / "bomb.png")
    caplog.set_level("WARNING", "tifffile")
    preprocessing = read_bundle().preprocessing if prepare else None
    store = tmp_path / "crops.zarr"
    assert pack.pack([folder], store, preprocessing=preprocessing, cores=2).errors == 2
    assert not caplog.records
    assert not recwarn.list
    assert not capfd.readouterr().err  # of the processes


def test_crops_that_differ_too_much_are_refused(tmp_path: Path) -> None:
    for number in range(30):
        write_bmp(tmp_path / "slide" / f"{number:02d}.bmp", 20, 20)
    write_bmp(tmp_path / "slide" / "whole-field.bmp", 400, 500)
    with pytest.raises(InputError, match=r"whole-field\.bmp has 500 x 400.*times the space"):
        pack.pack([tmp_path / "slide"], tmp_path / "crops.zarr")
    write_bmp(tmp_path / "slide" / "tall.bmp", 410, 30)
    with pytest.raises(InputError, match=r"field\.bmp is 500 pixels wide and .*tall\.bmp 410 high"):
        pack.pack([tmp_path / "slide"], tmp_path / "crops.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["slide"]


def test_crops_that_would_be_padded_to_something_too_large_are_refused(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 49 x 51 and 40 x 60 are none too large.
    monkeypatch.setattr(size_limits, "MAX_PIXELS", 49 * 60 - 1)
    with pytest.raises(
        InputError, match=r"do not fit into one store: .* 60 x 49 pixels is too large"
    ):
        pack.pack([slides], "crops.zarr")
    assert not Path("crops.zarr").exists()


def test_a_damaged_header_says_nothing_of_the_size(tmp_path: Path) -> None:
    write_bmp(tmp_path / "slide" / "1.bmp", 20, 20)
    damaged = tmp_path / "slide" / "damaged.tif"
    tifffile.imwrite(damaged, np.zeros((20, 20), np.uint8))
    with tifffile.TiffFile(damaged, mode="r+") as file:
        file.pages[0].tags["ImageWidth"].overwrite(2**31, dtype=4)
        file.pages[0].tags["ImageLength"].overwrite(0)
    summary = pack.pack([tmp_path / "slide"], tmp_path / "crops.zarr")
    assert (summary.cells, summary.errors, summary.width) == (2, 1, 20)
    assert_same_cells([tmp_path / "slide"], tmp_path / "crops.zarr")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("slides", "already exists"),
        ("nowhere/crops.zarr", "no folder nowhere"),
        ("slides/crops.zarr", "lies inside the input"),
        ("s3://bucket/crops.zarr", "is a URL"),
        ("circle", "already exists"),
        ("dangling.zarr", "already exists"),
        (300 * "x", "cannot be used for results .file name too long"),
        (300 * "x" + "/crops.zarr", "no folder xxx"),
    ],
)
def test_places_that_cannot_be_used_are_named(output: str, reason: str, slides: Path) -> None:
    Path("circle").symlink_to("circle")
    Path("dangling.zarr").symlink_to("nowhere")
    with pytest.raises((InputError, RunError), match=reason):
        pack.pack([slides], output)


def test_nothing_to_pack_and_nothing_left(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("notes").mkdir()
    Path("notes/1.txt").write_text("no picture")
    with pytest.raises(InputError, match="nothing to pack"):
        pack.pack(["notes"], "crops.zarr")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed_writer, "_write_crops", full)
    with pytest.raises(IncompleteRunError, match="no space left on device"):
        pack.pack([slides], "crops.zarr")

    def silent(*_: object) -> None:
        raise UnreachableError("the server is gone")  # which says nothing of the store

    monkeypatch.setattr(packed_writer, "_write_crops", silent)
    with pytest.raises(UnreachableError):
        pack.pack([slides], "crops.zarr")
    assert sorted(path.name for path in Path().iterdir()) == ["notes", "slides"]


def test_a_cell_that_cannot_be_read_for_now_is_not_packed_as_damaged(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = Path.read_bytes, iter([OSError(errno.ESTALE, "Stale file handle")])

    def fail_once(path: Path) -> bytes:  # while sizes are measured
        for failure in failures:
            raise failure
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail_once)
    with pytest.raises(UnreachableError, match=r"bmp cannot be read for now") as caught:
        pack.pack([slides], "crops.zarr")
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert pack.pack([slides], "crops.zarr").cells == 12


def test_one_process_packs_a_store(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = packed_writer._write_crops
    tried = []

    def and_again(*arguments: Any) -> None:
        if not tried:
            tried.append(True)
            with pytest.raises(RunError, match=r"crops\.zarr is being packed by another process"):
                pack.pack([slides], "crops.zarr")
        write(*arguments)

    Path(".crops.zarr.partial").mkdir()  # as one that was killed leaves it
    Path(".crops.zarr.partial/zarr.json").touch()
    Path(".crops.zarr.lock").touch()
    monkeypatch.setattr(packed_writer, "_write_crops", and_again)
    pack.pack([slides], "crops.zarr")
    assert tried
    assert_same_cells([slides], Path("crops.zarr"))
    assert sorted(path.name for path in Path().iterdir()) == ["crops.zarr", "slides"]


def test_a_store_is_not_written_through_a_link_that_somebody_else_put_there(slides: Path) -> None:
    Path("mine").mkdir()
    Path("mine/precious.txt").touch()
    Path(".crops.zarr.partial").symlink_to("mine")
    pack.pack([slides], "crops.zarr")
    assert [path.name for path in Path("mine").iterdir()] == ["precious.txt"]
    assert not Path("crops.zarr").is_symlink()
    assert_same_cells([slides], Path("crops.zarr"))


def test_an_input_that_grows_is_noticed(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = pack._measured

    def then_grow(*arguments: Any) -> Any:
        layout = measured(*arguments)
        write_bmp(slides / "slide-1" / "new.bmp", 30, 30)
        return layout

    monkeypatch.setattr(pack, "_measured", then_grow)
    with pytest.raises(RunError, match="changed while it was being packed"):
        pack.pack([slides], "crops.zarr")
    assert not Path("crops.zarr").exists()


# --- canonical crops beside the pictures


def prepared(cells: list[Cell], preprocessing: Preprocessing) -> list[bytes | str]:
    crops = [attempt_read(read) for read in prepared_readers(cells, preprocessing)]
    return [str(crop) if isinstance(crop, ImageError) else _bytes(crop) for crop in crops]


def _bytes(crop: CanonicalCrop) -> bytes:
    return crop.pixels.tobytes() + np.float32(crop.nucleus_size).tobytes()


@pytest.mark.parametrize("compress", [False, True])
def test_canonical_crops_are_kept_ready(compress: bool, slides: Path) -> None:
    ours = read_bundle().preprocessing
    pack.pack([slides], "crops.zarr", compress=compress, preprocessing=ours)
    assert_same_cells([slides], Path("crops.zarr"))
    before, after = list(list_cells([slides])), list(list_cells(["crops.zarr"]))
    wanted = prepared(before, ours)
    sizes = [attempt_read(read) for read in prepared_readers(before, ours)]
    assert any(isinstance(crop, CanonicalCrop) and crop.nucleus_size > 0.5 for crop in sizes)
    assert prepared(after, ours) == wanted
    shutil.rmtree("crops.zarr/crops/c")  # the pictures
    assert prepared(after, ours) == wanted


def test_a_model_that_sees_something_else_gets_the_pictures(slides: Path) -> None:
    ours = read_bundle().preprocessing
    pack.pack([slides], "crops.zarr", preprocessing=ours)
    other = replace(ours, context=ours.context + 0.5)
    before, after = list(list_cells([slides])), list(list_cells(["crops.zarr"]))
    assert prepared(after, other) == prepared(before, other) != prepared(after, ours)
    shutil.rmtree("crops.zarr/crops/c")
    assert all("fill value" in text or "truncated" in text for text in prepared(after, other))


def test_crops_prepared_by_another_version_are_not_used(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = read_bundle().preprocessing
    with monkeypatch.context() as earlier:
        earlier.setattr(packed, "REVISION", packed.REVISION - 1)
        pack.pack([slides], "crops.zarr", preprocessing=ours)
    shutil.rmtree("crops.zarr/crops/c")
    after = list(list_cells(["crops.zarr"]))
    assert all("fill value" in text or "truncated" in text for text in prepared(after, ours))


def test_a_missing_canonical_crop_is_an_error(slides: Path) -> None:
    ours = read_bundle().preprocessing
    pack.pack([slides], "crops.zarr", preprocessing=ours)
    shutil.rmtree("crops.zarr/prepared/c")
    after = prepared(list(list_cells(["crops.zarr"])), ours)
    assert all("fill value" in text or "truncated" in text for text in after)


def test_processes_read_from_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = read_bundle().preprocessing
    for place in ("first", "second"):
        write_bmp(tmp_path / place / f"slide-{place}" / "1.bmp", 40, 40)
        monkeypatch.chdir(tmp_path / place)
        summary = pack.pack([f"slide-{place}"], "crops.zarr", preprocessing=ours, cores=2)
        assert (summary.cells, summary.errors) == (1, 0)


@pytest.mark.usefixtures("blank_drawings")
def test_a_run_on_canonical_crops_makes_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        draw(Path("slides") / f"slide-{number % 2}" / f"{number:02d}.png", number)
    Path("slides/slide-1/damaged.png").write_bytes(b"none")
    result = invoke("pack", "slides", "-o", "all.zarr", "--model", "default")
    assert result.exit_code == ExitCode.CELL_ERRORS, result.output
    assert "The next run with default reads and prepares" in result.stdout
    classify_paths(["slides"], "plain", device="cpu", workers=1)
    classify_paths(["all.zarr"], "packed", device="cpu", workers=1)
    assert Path("packed/cells.csv").read_bytes() == Path("plain/cells.csv").read_bytes()


def test_an_unknown_model_is_refused_before_packing(slides: Path) -> None:
    result = invoke("pack", "slides", "-o", "all.zarr", "--model", "nowhere")
    assert result.exit_code == ExitCode.FATAL
    assert "there is no model 'nowhere'" in result.stderr
    assert not Path("all.zarr").exists()


def test_the_command_says_what_was_gained(slides: Path) -> None:
    listed = "\0".join(str(path) for path in sorted((slides / "slide-0").iterdir()))
    result = invoke("pack", "-", "-o", "crops.zarr", input=listed)
    assert result.exit_code == ExitCode.OK, result.output
    assert "5 cells, up to" in result.stdout
    assert "The next run reads" in result.stdout
    result = invoke("pack", "slides", "-o", "all.zarr", "--json")
    assert result.exit_code == ExitCode.CELL_ERRORS
    assert json.loads(result.stdout)["errors"] == 1
    result = invoke("pack", "slides", "-o", "all.zarr")
    assert result.exit_code == ExitCode.FATAL
    assert "already exists" in result.stderr
