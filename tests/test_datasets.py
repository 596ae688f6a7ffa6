"""Data sets: the published layouts and their split, own folders with patients, manifests that are read."""

import csv
import errno
import inspect
import json
import logging
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from commands import invoke, room_for

from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.class_folders import list_class_folders
from wbc_batch.datasets.labelled import merge, read_dataset, refuse_shared_images
from wbc_batch.datasets.manifest import ManifestPart, read_manifest
from wbc_batch.datasets.naming import named_folders, named_validation
from wbc_batch.datasets.published import PBC_COUNTS, RAABIN_COUNTS
from wbc_batch.errors import ExitCode, InputError, UnreachableError
from wbc_batch.evaluation.folders import evaluate_folders
from wbc_batch.schema import CLASSES
from wbc_batch.sources.pack import pack
from wbc_batch.synthetic import draw_cell
from wbc_batch.training.folders import train_folders
from wbc_batch.training.settings import Settings

SMALL = Preprocessing(size=24)
TEST_B = {"lymphocyte": 40, "neutrophil": 60}


def rows(dataset: Path) -> list[dict[str, str]]:
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts(dataset: Path, *columns: str) -> Counter:
    """Rows by the values of some columns; by the one value where one column is named."""
    return Counter(
        row[columns[0]] if len(columns) == 1 else tuple(row[c] for c in columns)
        for row in rows(dataset)
    )


def fill(folder: Path, images: Mapping[str, int], seed: int = 0) -> Path:
    """Draw one tiny cell and write it as so many files, all different: a comment has seed and number."""
    for label, number in images.items():
        kind = label.lower() if label.lower() in CLASSES else "neutrophil"
        drawn = draw_cell(kind, seed, size=24)
        jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()
        place = folder / label
        place.mkdir(parents=True)
        for n in range(number):
            comment = f"{folder.name} {label} {seed} {n}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (place / f"{label[:2].upper()}_{n:05}.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    return folder


def capitalised(images: Mapping[str, int]) -> dict[str, int]:
    return {label.capitalize(): number for label, number in images.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Drawn images with the folders, names and counts of PBC and Raabin-WBC."""
    root = tmp_path_factory.mktemp("published")
    fill(root / "PBC" / "PBC_dataset_normal_DIB", PBC_COUNTS)
    fill(root / "Raabin" / "Train", capitalised(RAABIN_COUNTS["Train"]))
    fill(root / "Raabin" / "Test-A", capitalised(RAABIN_COUNTS["TestA"]))
    fill(root / "Raabin" / "TestB", capitalised(TEST_B))
    return root


@pytest.fixture(scope="module")
def prepared(published) -> Path:
    output = published / "dataset"
    done = invoke(
        "dataset",
        "prepare",
        "--pbc",
        published / "PBC",
        "--raabin",
        published / "Raabin",
        "-o",
        output,
    )
    assert done.exit_code == 0, done.stderr
    assert "warning" not in done.stderr
    return output


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A hundredth of the published data sets."""
    root = tmp_path_factory.mktemp("small")
    fill(root / "PBC", {label: n // 100 for label, n in PBC_COUNTS.items()}, seed=1)
    for part in ("Train", "TestA"):
        some = {label: max(n // 100, 2) for label, n in RAABIN_COUNTS[part].items()}
        fill(root / "Raabin" / part, capitalised(some), seed=1)
    arguments = ("--pbc", root / "PBC", "--raabin", root / "Raabin", "-o", root / "dataset")
    assert invoke("dataset", "prepare", *arguments).exit_code == 0
    return root


def test_the_published_split_comes_out(prepared):
    assert counts(prepared, "split") == {
        "train": 18_412,
        "validation": 3_200,
        "test": 3_200,
        "out_of_class": 17_092 - 10_298,
        "shifted": sum(TEST_B.values()),
    }
    halves = counts(prepared, "split", "source")
    assert halves["train", "raabin"] == 10_175
    assert halves["train", "pbc"] == 8_237
    assert (halves["validation", "raabin"], halves["test", "raabin"]) == (2_170, 2_169)
    assert (halves["validation", "pbc"], halves["test", "pbc"]) == (1_030, 1_031)


def test_every_class_is_divided_like_the_whole(prepared):
    found = counts(prepared, "split", "source", "label")
    for label in CLASSES:
        assert found["train", "raabin", label] == RAABIN_COUNTS["Train"][label]
        assert found["train", "pbc", label] == PBC_COUNTS[label] * 8 // 10
        for source in ("pbc", "raabin"):
            difference = found["validation", source, label] - found["test", source, label]
            assert abs(difference) <= 1
    shares = counts(prepared, "split", "label")
    percent = [round(100 * shares["train", label] / 18_412, 1) for label in CLASSES]
    assert percent == [6.4, 17.6, 18.5, 9.2, 48.3]


def test_what_is_dropped_serves_as_test_sets(prepared):
    found = counts(prepared, "split", "source", "label")
    assert found["out_of_class", "pbc", "ig"] == 2_895
    assert found["out_of_class", "pbc", "platelet"] == 2_348
    assert found["shifted", "raabin", "neutrophil"] == TEST_B["neutrophil"]
    shifted = read_dataset("b", ManifestPart(prepared, "shifted"), SMALL)
    assert shifted.counts()["raabin"]["lymphocyte"] == TEST_B["lymphocyte"]
    with pytest.raises(InputError, match="labeled 'erythroblast', which is not a class"):
        read_dataset("x", ManifestPart(prepared, "out_of_class"), SMALL)


def test_the_seed_decides_and_nothing_else_does(small, tmp_path):
    first = (small / "dataset" / "manifest.csv").read_bytes()
    moved = Path(shutil.copytree(small, tmp_path / "elsewhere"))
    arguments = ("--pbc", moved / "PBC", "--raabin", moved / "Raabin")
    assert invoke("dataset", "prepare", *arguments, "-o", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again" / "manifest.csv").read_bytes() == first
    invoke("dataset", "prepare", *arguments, "-o", tmp_path / "other", "--seed", 1)
    assert (tmp_path / "other" / "manifest.csv").read_bytes() != first
    assert counts(tmp_path / "other", "split", "label") == counts(
        small / "dataset", "split", "label"
    )


def test_counts_that_differ_from_the_published_are_told_and_kept(small):
    done = invoke("dataset", "prepare", "--pbc", small / "PBC", "-o", small / "pbc_only", "--json")
    assert done.exit_code == 0
    line = "pbc monocyte: 14 images, but 1,420 were published (1,406 missing)"
    assert f"warning: {line}" in done.stderr
    assert line in json.loads(done.stdout)["warnings"]
    record = json.loads((small / "pbc_only" / "dataset.json").read_text())
    assert line in record["differs_from_published"]
    assert record["seed"] == 0
    assert record["counts"]["train"]["pbc"]["neutrophil"] == 33 * 8 // 10
    assert record["roots"] == {"pbc": "../PBC"}


def test_the_terminal_shows_both_halves(small, tmp_path):
    arguments = ("--pbc", small / "PBC", "--raabin", small / "Raabin", "-o", tmp_path / "d")
    shown = invoke("dataset", "prepare", *arguments).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    numbers = [2, 7, 24, 5, 62]
    assert f"raabin {sum(numbers)} {' '.join(map(str, numbers))}" in lines
    assert any(line.startswith("validation pbc") for line in lines)
    assert any(line.startswith("out_of_class: erythroblast 15, ig 28") for line in lines)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: shutil.rmtree(d / "PBC" / "monocyte"), "no images of monocyte"),
        (lambda d: [p.unlink() for p in (d / "PBC" / "ig").iterdir()], "ig is an empty folder"),
        (lambda d: (d / "PBC" / "blast").mkdir(), "blast is an empty folder"),
        (lambda d: fill(d / "PBC", {"blast": 1}), "'blast', which is not a class"),
        (lambda d: shutil.rmtree(d / "Raabin" / "TestA"), "has no subfolder TestA"),
        (lambda d: shutil.rmtree(d / "Raabin" / "Train" / "Basophil"), "no images of basophil"),
        (lambda d: shutil.rmtree(d / "PBC"), "no such file or folder"),
        (lambda d: shutil.copytree(d / "Raabin" / "TestA", d / "Raabin" / "Test_A"), "both Raabin"),
        (lambda d: (d / "PBC" / "ig" / "IG_00003.jpg").write_bytes(b""), "IG_00003.jpg is empty"),
        (lambda d: fill(d / "out", {"x": 1}), "out already exists"),
    ],
)
def test_an_unusable_layout_is_one_sentence(small, tmp_path, damage, message):
    for name in ("PBC", "Raabin"):
        shutil.copytree(small / name, tmp_path / name)
    damage(tmp_path)
    arguments = ("--pbc", tmp_path / "PBC", "--raabin", tmp_path / "Raabin")
    done = invoke("dataset", "prepare", *arguments, "-o", tmp_path / "out")
    assert done.exit_code in (ExitCode.USAGE, ExitCode.FATAL)
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_copies_stay_on_one_side(small, tmp_path):
    pbc = Path(shutil.copytree(small / "PBC", tmp_path / "PBC"))
    raabin = Path(shutil.copytree(small / "Raabin", tmp_path / "Raabin"))
    for n in range(4):  # in training and in Test-A
        shutil.copy(
            raabin / f"TestA/Neutrophil/NE_{n:05}.jpg", raabin / f"Train/Neutrophil/c{n}.jpg"
        )
    shutil.copy(pbc / "ig" / "IG_00001.jpg", pbc / "monocyte" / "wrong.jpg")
    done = invoke("dataset", "prepare", "--pbc", pbc, "--raabin", raabin, "-o", tmp_path / "out")
    assert "4 copies of images in other splits were set aside (split 'duplicate')" in done.stderr
    assert "2 images with two labels were set aside (split 'conflicting')" in done.stderr
    aside = {r["path"]: r["split"] for r in rows(tmp_path / "out")}
    assert all(aside[f"Train/Neutrophil/c{n}.jpg"] == "duplicate" for n in range(4))
    assert aside["TestA/Neutrophil/NE_00001.jpg"] in ("validation", "test")
    assert aside["monocyte/wrong.jpg"] == aside["ig/IG_00001.jpg"] == "conflicting"
    read_manifest(tmp_path / "out")


# ---- own folders


@pytest.fixture
def own(tmp_path) -> Path:
    """A laboratory's cells: patients of different sizes, each with folders of its own class names."""
    rng = np.random.default_rng(3)
    for patient in range(24):
        numbers = rng.integers(1, 12, 5)
        names = ("baso", "eos", "lymph", "Monocyte", "NEUT")
        fill(tmp_path / "lab" / f"p{patient}", dict(zip(names, numbers, strict=True)), seed=patient)
    return tmp_path / "lab"


OWN = ("baso=basophil", "EOS=eosinophil", "lymph=lymphocyte", "NEUT=neutrophil")
LABELS = tuple(word for mapping in OWN for word in ("--label", mapping))


def test_a_patient_stays_on_one_side_and_classes_stay_in_proportion(own, tmp_path):
    arguments = (
        "--group-by",
        r"/(p\d+)/",
        "--validation",
        0.2,
        "--test",
        0.2,
        "-o",
        tmp_path / "d",
    )
    done = invoke("dataset", "prepare", own, *LABELS, *arguments)
    assert done.exit_code == 0, done.stderr
    splits = {(row["group"], row["split"]) for row in rows(tmp_path / "d")}
    assert len(splits) == len({group for group, _ in splits}) == 24
    found, total = counts(tmp_path / "d", "split", "label"), counts(tmp_path / "d", "label")
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        for label in CLASSES:
            assert found[split, label] / total[label] == pytest.approx(share, abs=0.06)
    cells = read_dataset("lab", ManifestPart(tmp_path / "d", "test"), SMALL)
    assert set(cells.groups) == {group for group, split in splits if split == "test"}


def test_every_split_gets_a_patient_even_of_few(own, tmp_path):
    for patient in range(3, 24):
        shutil.rmtree(own / f"p{patient}")
    invoke("dataset", "prepare", own, *LABELS, "--group-by", r"/(p\d+)/", "-o", tmp_path / "d")
    assert {len(v) for v in _groups_by_split(tmp_path / "d").values()} == {1}
    shutil.rmtree(own / "p2")
    done = invoke(
        "dataset", "prepare", own, *LABELS, "--group-by", r"/(p\d+)/", "-o", tmp_path / "e"
    )
    assert "finds 2 patients or slides, too few for 3 splits" in done.stderr


def _groups_by_split(dataset: Path) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for row in rows(dataset):
        groups.setdefault(row["split"], set()).add(row["group"])
    return groups


def test_folders_of_classes_are_divided_class_by_class(tmp_path):
    fill(tmp_path / "lab", dict(zip(CLASSES, (10, 20, 30, 40, 1), strict=True)))
    fill(tmp_path / "lab", {"blast": 5})
    arguments = ("--label", "blast=out_of_class", "--validation", 0.3, "--test", 0)
    done = invoke(
        "dataset", "prepare", f"mine={tmp_path / 'lab'}", *arguments, "-o", tmp_path / "d"
    )
    found = counts(tmp_path / "d", "source", "split", "label")
    assert [found["mine", "train", label] for label in CLASSES] == [7, 14, 21, 28, 1]
    assert [found["mine", "validation", label] for label in CLASSES] == [3, 6, 9, 12, 0]
    assert found["mine", "out_of_class", "blast"] == 5
    assert "the split 'validation' has no neutrophil" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "'NEUT', which is not a class"),
        (("--label", "baso=basofil"), "does not name a class; the classes are basophil"),
        (("--label", "baso"), "not of the form FOLDER=CLASS"),
        ((*LABELS, "--label", "NEUT=monocyte"), "to neutrophil and to monocyte"),
        ((*LABELS, "--group-by", "("), "is not a valid regular expression"),
        ((*LABELS, "--group-by", "(a{99999999999})"), "is not a valid regular expression"),
        ((*LABELS, "--group-by", "p"), "has no group"),
        ((*LABELS, "--group-by", r"slide-(\d+)"), "finds no group in 'lab/p0/"),
        ((*LABELS, "--test", 0.9), "for test cannot be used"),
        ((*LABELS, "--test", -0.1), "for test cannot be used"),
        ((*LABELS, "--validation", "nan"), "are not numbers"),
        ((*LABELS, "--label", "Neutrophil=out_of_class"), "marks a class as out_of_class"),
    ],
)
def test_arguments_that_make_no_sense_are_one_sentence(own, tmp_path, arguments, message):
    done = invoke("dataset", "prepare", own, *arguments, "-o", tmp_path / "d")
    assert done.exit_code == ExitCode.USAGE
    assert message in done.stderr
    assert not (tmp_path / "d").exists()


def test_no_manifest_is_written_among_the_cells(tmp_path):
    cells = fill(tmp_path / "cells", dict.fromkeys(CLASSES, 1))
    done = invoke("dataset", "prepare", cells, "-o", cells / "new" / "d")
    assert done.exit_code == ExitCode.USAGE
    assert f"{cells / 'new' / 'd'} lies inside {cells}" in done.stderr
    assert not (cells / "new").exists()


def test_no_cell_is_taken_twice(own, tmp_path):
    done = invoke("dataset", "prepare", own, own / "p1", *LABELS, "-o", tmp_path / "d")
    assert "p1 lies inside" in done.stderr
    done = invoke("dataset", "prepare", f"a={own}", f"b={own}", *LABELS, "-o", tmp_path / "d")
    assert "a folder was given twice" in done.stderr


def test_a_full_disk_leaves_no_half_of_a_data_set(tmp_path):
    cells = fill(tmp_path / "cells", dict.fromkeys(CLASSES, 1))
    long = f"{'x' * 5_000}=monocyte"  # dataset.json holds it, the manifest does not
    command = ("dataset", "prepare", cells, "--label", long, "-o", tmp_path / "d")
    with room_for(2_000):
        done = invoke(*command)
    assert done.exit_code == ExitCode.INCOMPLETE
    assert re.fullmatch(
        r"wbc-batch: \S+ cannot be written \(.*\n", done.stderr.splitlines(True)[-1]
    )
    assert invoke(*command).exit_code == 0


def test_nothing_to_prepare_is_said(tmp_path):
    assert "no cells were given" in invoke("dataset", "prepare", "-o", tmp_path / "d").stderr


# ---- reading


def test_sources_of_a_prepared_data_set_are_data_sets(small, tmp_path):
    dataset = small / "dataset"
    assert named_folders([str(dataset)], "train") == {
        "pbc": ManifestPart(dataset, "train", "pbc"),
        "raabin": ManifestPart(dataset, "train", "raabin"),
    }
    named = named_folders([f"seed={dataset}:validation", f"lab={small / 'PBC'}"], "train")
    assert list(named) == ["seed-pbc", "seed-raabin", "lab"]
    assert named["seed-pbc"] == ManifestPart(dataset, "validation", "pbc")
    assert named["lab"] == small / "PBC"
    assert list(named_folders([str(dataset)], "test")) == ["pbc-test", "raabin-test"]
    assert named_validation([], [str(small / "PBC")]) == {}
    assert named_validation([], [f"{dataset}:train", "other"]) == named_folders(
        [str(dataset)], "validation"
    )
    without = Path(shutil.copytree(dataset, tmp_path / "without"))
    rows = (dataset / "manifest.csv").read_text().splitlines()
    kept = "\n".join(row for row in rows if ",validation," not in row)
    (without / "manifest.csv").write_text(kept)
    assert named_validation([], [str(without)]) == {}  # a part of the training cells is held out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{}/dataset:valid", "has no split 'valid'; its splits are"),
        ("{}/PBC:train", "not a prepared data set, so it has no split 'train'"),
    ],
)
def test_a_split_that_is_not_there_is_said(small, argument, message):
    with pytest.raises(InputError, match=message):
        named_folders([argument.format(small)], "train")


def test_splits_are_read_and_share_nothing(small):
    dataset = small / "dataset"
    train = read_dataset("all", ManifestPart(dataset, "train"), SMALL)
    assert set(train.names) == {"pbc", "raabin"}
    assert len(train) == counts(dataset, "split")["train"]
    parts = named_folders([str(dataset)], "validation")
    held = merge([read_dataset(name, part, SMALL) for name, part in parts.items()])
    assert len(held) == counts(dataset, "split")["validation"]
    refuse_shared_images(train, held)
    with pytest.raises(InputError, match="both training and validation cells"):
        refuse_shared_images(train, merge([held, train]))


def test_a_copy_under_another_name_is_found_before_training(small, tmp_path):
    folder = Path(shutil.copytree(small / "PBC", tmp_path / "cells"))
    for other in ("ig", "erythroblast", "platelet"):
        shutil.rmtree(folder / other)
    held = tmp_path / "held" / "monocyte"
    held.mkdir(parents=True)
    shutil.copy(folder / "monocyte" / "MO_00002.jpg", held / "renamed.jpg")
    with pytest.raises(
        InputError,
        match=r"MO_00002\.jpg of a, which is the same image as monocyte/renamed\.jpg of b",
    ):
        refuse_shared_images(
            read_dataset("a", folder, SMALL), read_dataset("b", held.parent, SMALL)
        )


def test_a_data_set_may_move_with_its_images_but_not_without(small, tmp_path):
    place = Path(shutil.copytree(small, tmp_path / "place"))
    moved = place.rename(tmp_path / "elsewhere")
    assert len(read_dataset("x", ManifestPart(moved / "dataset", "test"), SMALL)) > 0
    (moved / "PBC").rename(moved / "PBC_new")
    number = counts(moved / "dataset", "split", "source")["test", "pbc"]
    with pytest.raises(InputError, match=rf"PBC/.*\.jpg is missing \({number} of .*dataset\.json"):
        named_folders([str(moved / "dataset")], "test")
    description = moved / "dataset" / "dataset.json"
    description.write_text(description.read_text().replace('"../PBC"', '"../PBC_new"'))
    assert len(read_dataset("x", ManifestPart(moved / "dataset", "test"), SMALL)) > 0


def test_an_image_that_changed_is_refused(small, tmp_path):
    place = Path(shutil.copytree(small, tmp_path / "place"))
    first = next(r for r in rows(place / "dataset") if (r["split"], r["source"]) == ("test", "pbc"))
    image = place / "PBC" / first["path"]
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(InputError, match="has changed since the data set was prepared"):
        read_dataset("x", ManifestPart(place / "dataset", "test"), SMALL)


def test_a_manifest_by_hand_is_read_from_its_own_folder(tmp_path):
    fill(tmp_path / "cells", {"neutrophil": 2})
    lines = [f"cells/neutrophil/NE_0000{n}.jpg;neutrophil;mine;test" for n in range(2)]
    (tmp_path / "mine.csv").write_text("\n".join(["path;label;source;split", *lines]))
    cells = read_dataset("x", ManifestPart(tmp_path / "mine.csv", "test"), SMALL)
    assert cells.names == ("mine", "mine")
    assert cells.members[1] == "cells/neutrophil/NE_00001.jpg"
    assert cells.labels.tolist() == [4, 4]


HEAD = "path,label,source,split,sha256,group"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,neutrophil", "has no column 'source'"),
        (HEAD, "lists no images"),
        (f"{HEAD}\na,,s,test,,", "row 2 has no label"),
        (f"{HEAD}\na,monocyte,s,train,ff,\nb,monocyte,s,test,ff,", "are the same image"),
        (f"{HEAD}\na,monocyte,s,train,,\na,monocyte,s,test,,", "are the same image"),
        (f"{HEAD}\na,monocyte,s,train,,p1\nb,monocyte,s,test,,p1", "'p1' are in two splits"),
        (f"{HEAD}\na,monocyte,s,test,,", "a is missing"),
        (f"{HEAD}\na,monocyte,s,test,,\nx/../a,monocyte,s,test,,", "lists x/../a twice"),
        (
            f"{HEAD}\na,monocyte,s,test,,\na,basophil,s,test,,",
            "a (monocyte) and a (basophil) are the same image",
        ),
        (
            f"{HEAD}\na,monocyte,s,test,ff,\nb,basophil,s,test,ff,",
            "a (monocyte) and b (basophil) are the same image",
        ),
        (f"{HEAD}\n\n\na,,s,test,,", "row 4 has no label"),
        (
            f'{HEAD}\n"a,monocyte,s,test,,{"a" * 140_000}',
            "there for a double quote that is not closed",
        ),
        (f"{HEAD}\na,neutrophil,s,test,,g,more", "row 2 of"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_sentence(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        named_folders([str(tmp_path / "m.csv")], "test")


def test_one_image_with_two_labels_is_refused_wherever_it_lies(tmp_path):
    cells = fill(tmp_path / "cells", {"monocyte": 2, "lymphocyte": 1})
    shutil.copy(cells / "monocyte" / "MO_00001.jpg", cells / "lymphocyte" / "copy.jpg")
    with pytest.raises(
        InputError, match=r"lymphocyte/copy\.jpg of x, a lymphocyte, and monocyte/MO_00001\.jpg"
    ):
        read_dataset("x", cells, SMALL)


def test_copies_that_count_several_times_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("wbc_batch"), "propagate", True)
    cells = fill(tmp_path / "cells", dict.fromkeys(CLASSES, 5))
    for n in range(3):
        shutil.copy(cells / "monocyte" / "MO_00001.jpg", cells / "monocyte" / f"copy-{n}.jpg")
    evaluate_folders("default", {"x": cells}, device="cpu", backend="torch")
    assert "3 of 28 cells are copies of others" in caplog.text
    command = ("dataset", "prepare", cells, "--validation", 0, "--test", 0, "-o", tmp_path / "d")
    done = invoke(*command)
    assert "3 images are copies of others in the same split" in done.stderr


def test_a_path_may_have_an_equals_sign(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(Path("run=1/val"), {"monocyte": 1})
    shutil.copytree(small, "run=2")
    assert named_folders(["run=1/val"], "train") == {"val": Path("run=1/val")}
    assert named_folders(["a=run=1/val"], "train") == {"a": Path("run=1/val")}
    assert set(named_folders(["run=2/dataset:test"], "train")) == {"pbc-test", "raabin-test"}
    assert set(named_validation([], ["run=2/dataset"])) == {"pbc-validation", "raabin-validation"}


def test_a_prepared_data_set_is_trained_on_and_measured(small, tmp_path):
    place = [str(small / "dataset")]
    settings = Settings(
        arguments={"widths": [16, 16, 16, 16], "dropout": 0.0},
        preprocessing=replace(SMALL, size=40),
        epochs=1,
        cells_per_epoch=16,
        batch_size=8,
        device="cpu",
    )
    output = tmp_path / "run"
    held = named_validation([], place)
    bundle = train_folders("t", named_folders(place, "train"), held, output, settings)
    found = counts(small / "dataset", "split", "source", "label")
    assert list(bundle.training["cells"]) == ["pbc", "raabin"]
    assert bundle.training["cells"]["raabin"]["monocyte"] == found["train", "raabin", "monocyte"]
    assert list(bundle.training["validation_cells"]) == ["pbc-validation", "raabin-validation"]
    done = invoke("evaluate", output / "bundle", *place, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.stderr
    assert "pbc-test" in done.stdout


def test_folders_may_be_nested_deeper_than_calls(tmp_path):
    folder = tmp_path / "neutrophil"
    for _ in range(150):
        folder.mkdir()
        folder /= "a"
    folder.mkdir()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)
    try:
        (folder / "1.png").write_bytes(b"a picture")
        (file,) = list_class_folders("own", tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert file.label == "neutrophil"


def test_an_empty_class_folder_is_refused_before_training(tmp_path):
    fill(tmp_path / "cells", dict.fromkeys(CLASSES, 1))
    (tmp_path / "cells" / "monocyte" / "MO_00000.jpg").unlink()
    with pytest.raises(InputError, match="monocyte is an empty folder"):
        read_dataset("x", tmp_path / "cells", SMALL)


@pytest.mark.realdata
def test_real_cells_are_divided_and_read(real_cells, tmp_path):
    folders = [f"pbc={real_cells / 'pbc'}", f"raabin={real_cells / 'raabin'}"]
    done = invoke("dataset", "prepare", *folders, "-o", tmp_path / "d")
    assert done.exit_code == 0, done.stderr
    numbers = counts(tmp_path / "d", "split", "source")
    pbc = sum(1 for _ in (real_cells / "pbc").rglob("*.*"))
    raabin = sum(1 for _ in (real_cells / "raabin").rglob("*.*"))
    assert sum(numbers.values()) == pbc + raabin
    assert numbers["train", "pbc"] == pytest.approx(0.8 * pbc, abs=5)
    assert numbers["test", "raabin"] == pytest.approx(0.1 * raabin, abs=5)
    cells = read_dataset("x", ManifestPart(tmp_path / "d", "test"), SMALL)
    assert cells.counts()["raabin"]["basophil"] == pytest.approx(6, abs=1)
    assert len(np.unique(cells.crops.reshape(len(cells), -1), axis=0)) == len(cells)


@pytest.mark.realdata
def test_real_cells_in_the_published_layout(real_cells, tmp_path):
    pbc = tmp_path / "PBC_dataset_normal_DIB"
    pbc.mkdir()
    for folder in [*(real_cells / "pbc" / "val").iterdir(), *(real_cells / "pbc_other").iterdir()]:
        (pbc / folder.name).symlink_to(folder)
    done = invoke("dataset", "prepare", "--pbc", tmp_path, "-o", tmp_path / "d")
    assert done.exit_code == 0, done.stderr
    assert "but 3,117 were published" in done.stderr
    found = counts(tmp_path / "d", "split", "label")
    assert found["train", "neutrophil"] == 95 * 8 // 10
    assert found["out_of_class", "platelet"] == 244
    validation = read_dataset("x", ManifestPart(tmp_path / "d", "validation"), SMALL)
    assert validation.counts()["pbc"]["basophil"] == 9


def test_stacks_and_stores_are_no_labelled_cells(tmp_path: Path) -> None:
    lab = fill(tmp_path / "lab", {"neutrophil": 2})
    own = "each labeled cell must have its own file, so save the images as separate files"
    stack = lab / "neutrophil" / "stack.tif"
    tifffile.imwrite(stack, np.zeros((3, 24, 24, 3), np.uint8), photometric="rgb")
    with pytest.raises(
        InputError, match=rf"stack\.tif cannot be used: the file holds 3 pages; {own}"
    ):
        read_dataset("lab", lab, SMALL)
    stack.unlink()
    pack([lab], tmp_path / "lab.zarr")
    with pytest.raises(InputError, match=r"lab\.zarr is a zarr store; give a folder that holds"):
        read_dataset("lab", tmp_path / "lab.zarr", SMALL)
    shutil.move(tmp_path / "lab.zarr", lab / "neutrophil" / "lab.zarr")
    with pytest.raises(InputError, match=rf"lab\.zarr cannot be used: this is a zarr store; {own}"):
        read_dataset("lab", lab, SMALL)


def test_a_file_system_that_does_not_answer_for_now_is_not_held_against_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = fill(tmp_path / "lab", {"neutrophil": 2})

    def fail(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(UnreachableError, match=r"cannot be read for now: stale file handle$"):
        read_dataset("lab", lab, SMALL)
