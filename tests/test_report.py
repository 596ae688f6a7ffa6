"""The reports of a run: tables, differential, terminal, page."""

import base64
import hashlib
import json
import os
import re
import sys
from dataclasses import asdict, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_runs import COLOUR, a_row, draw, page_of, read_csv, write_shards
from rich.console import Console
from scipy import stats

from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import InputError, RunError
from wbc_batch.report import (
    differential,
    print_differential,
    read_differential,
    write_reports,
)
from wbc_batch.report.flags import Flag
from wbc_batch.report.geojson import GeoJsonFolder
from wbc_batch.report.limits import clopper_pearson
from wbc_batch.report.tables import ERROR_SCHEMA
from wbc_batch.run import RunSummary
from wbc_batch.schema import (
    BOX_COLUMNS,
    CELL_COLUMNS,
    CELL_TYPES,
    CLASSES,
    OPTIONAL_TYPES,
    PLACE_TYPES,
    REVIEW_COLUMNS,
    SET_COLUMN,
    UNIDENTIFIED,
)
from wbc_batch.sources import Cell

pytestmark = pytest.mark.usefixtures("blank_drawings")

REPORTS = ("cells.csv", "errors.csv", "differential.csv", "flags.csv", "report.html")


# --- exact limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "lower", "upper"),
    [
        (0, 100, 0.0, 3.6),
        (1, 100, 0.0, 5.4),
        (5, 100, 1.6, 11.3),
        (10, 100, 4.9, 17.6),
        (20, 200, 6.2, 15.0),
    ],
)
def test_limits_are_those_of_ruemke(k, n, lower, upper):
    low, high = clopper_pearson(k, n)
    assert (round(100 * float(low), 1), round(100 * float(high), 1)) == (lower, upper)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_limits_agree_with_scipys_exact_test(level):
    k = np.array([0, 1, 3, 7, 50, 99, 100])
    low, high = clopper_pearson(k, 100, level)
    for i, successes in enumerate(k):
        exact = stats.binomtest(int(successes), 100).proportion_ci(level, method="exact")
        assert low[i] == pytest.approx(exact.low, abs=1e-12)
        assert high[i] == pytest.approx(exact.high, abs=1e-12)


def test_limits_of_nothing_are_unknown_and_of_nonsense_refused():
    assert np.isnan(clopper_pearson(0, 0)).all()
    for k, n, level in [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)]:
        with pytest.raises(ValueError, match="between"):
            clopper_pearson(k, n, level)


# --- differential ---------------------------------------------------------------------------------


def test_differential_counts_per_group():
    cells = pd.DataFrame(
        {
            "group": ["b", "b", "b", "b", "b", "a", "b", "b"],
            "status": ["ok", "ok", "ok", "ok", "ok", "ok", "error", "error"],
            "label": [
                *["monocyte", "neutrophil", "neutrophil", "neutrophil", UNIDENTIFIED, "basophil"],
                *[None, "monocyte"],
            ],
            "confidence": [0.9, 0.5, 0.6, 1.0, 0.3, 0.7, None, None],
        }
    )
    table = differential(cells).set_index(["group", "label"])

    assert list(dict.fromkeys(group for group, _ in table.index)) == ["b", "a"]
    assert [label for group, label in table.index if group == "a"] == [
        *CLASSES,
        UNIDENTIFIED,
        "error",
    ]
    assert table.loc["b", "count"].to_dict() == dict(
        zip([*CLASSES, UNIDENTIFIED, "error"], [0, 0, 0, 1, 3, 1, 2], strict=True)
    )
    neutrophil = table.loc[("b", "neutrophil")]
    exact = stats.binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert neutrophil["percent"] == pytest.approx(75.0)
    assert neutrophil["lower"] == pytest.approx(100 * exact.low)
    assert neutrophil["upper"] == pytest.approx(100 * exact.high)
    assert neutrophil["mean_confidence"] == pytest.approx(0.7)
    assert neutrophil["median_confidence"] == pytest.approx(0.6)
    assert table.loc[("b", UNIDENTIFIED), "median_confidence"] == pytest.approx(0.3)
    assert (
        table.loc["b"]
        .loc[[UNIDENTIFIED, "error"], ["percent", "lower", "upper"]]
        .isna()
        .to_numpy()
        .all()
    )
    assert np.isnan(table.loc[("b", "basophil"), "mean_confidence"])


def test_differential_needs_only_label_and_confidence():
    table = differential(
        pd.DataFrame({"label": pd.Categorical(["monocyte", "monocyte"]), "confidence": [0.6, 0.8]})
    )
    assert list(table["group"].unique()) == [""]
    monocyte = table.set_index("label").loc["monocyte"]
    assert (monocyte["count"], monocyte["percent"]) == (2, 100.0)
    assert monocyte["median_confidence"] == pytest.approx(0.7)


def test_differential_without_identified_cells_has_no_percentages():
    table = differential(pd.DataFrame({"label": [UNIDENTIFIED], "confidence": [0.2]}))
    assert table["percent"].isna().all()
    assert table["count"].sum() == 1


def test_differential_refuses_what_it_does_not_know():
    with pytest.raises(InputError, match="'blast'"):
        differential(pd.DataFrame({"label": ["blast"], "confidence": [0.9]}))
    with pytest.raises(InputError, match="confidence"):
        differential(pd.DataFrame({"label": ["monocyte"]}))


# --- a run directory ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> tuple[Path, list[Path]]:
    """A run of three drawn cells in two groups, one of them gone since, and one error."""
    images = tmp_path / "images"
    rows = []
    for name, label, confidence in [
        ("one/a.png", "monocyte", 0.9),
        ("one/b.png", "monocyte", 0.7),
        ("two/c.png", UNIDENTIFIED, 0.4),
    ]:
        draw(images / name)
        rows.append(a_row(Cell(str(images), name, None, name[:3]), label, confidence))
    rows.append(a_row(Cell(str(images), "two/gone.png", None, "two"), "neutrophil", 0.95))
    rows.append(
        a_row(Cell(str(images), "two/bad.png", None, "two"), None, None, "the file is empty")
    )
    run_dir = tmp_path / "run"
    files = write_shards(run_dir, rows)
    record = {"model": {"name": "test-model", "preprocessing": asdict(Preprocessing(size=64))}}
    (run_dir / "run.json").write_text(json.dumps(record))
    return run_dir, files


# --- tables ---------------------------------------------------------------------------------------


def test_every_cell_is_a_row_in_order(run):
    run_dir, files = run
    write_reports(run_dir, files)

    rows = read_csv(run_dir / "cells.csv")
    assert tuple(rows[0]) == CELL_COLUMNS
    assert [row["member"] for row in rows] == [
        "one/a.png", "one/b.png", "two/c.png", "two/gone.png", "two/bad.png"
    ]  # fmt: skip
    assert [row["label"] for row in rows] == [
        "monocyte",
        "monocyte",
        UNIDENTIFIED,
        "neutrophil",
        "",
    ]
    assert float(rows[0]["confidence"]) == 0.9
    assert rows[0]["index"] == ""
    assert rows[4]["confidence"] == ""

    (error,) = read_csv(run_dir / "errors.csv")
    assert tuple(error) == ("cell_id", "source", "member", "index", "group", "error")
    assert (error["member"], error["error"]) == ("two/bad.png", "the file is empty")
    assert {path.name for path in run_dir.iterdir()} >= set(REPORTS)
    assert not list(run_dir.glob(".*"))


def test_the_docs_have_every_column():
    page = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
    names = {*CELL_TYPES, *OPTIONAL_TYPES, *PLACE_TYPES, SET_COLUMN, *REVIEW_COLUMNS}
    names |= {*ERROR_SCHEMA.names, *(field.name for field in fields(Flag))}
    names |= {field.name for field in fields(RunSummary)}
    assert not {name for name in names if f"`{name}`" not in page}


def test_spreadsheets_get_no_formulas(tmp_path):
    names = [
        "\uff1d1.png",
        "=1+1.png",
        "+a.png",
        "-b.png",
        "@c.png",
        "\td.png",
        "\re.png",
        "\nf.png",
        "a=b.png",
    ]
    rows = [a_row(Cell("in", name, 3, "=cmd"), "monocyte", 0.5) for name in names]
    for row in rows:
        row["margin"] = -0.25
    write_reports(tmp_path, write_shards(tmp_path, rows))

    found = read_csv(tmp_path / "cells.csv")
    assert [row["member"] for row in found] == ["'" + name for name in names[:-1]] + ["a=b.png"]
    assert {row["group"] for row in found} == {"'=cmd"}
    assert {(row["margin"], row["index"]) for row in found} == {("-0.25", "3")}
    assert {row["group"] for row in read_csv(tmp_path / "differential.csv")} == {"'=cmd"}
    assert set(read_differential(tmp_path / "differential.csv")["group"]) == {"=cmd"}


def test_shards_add_up_to_what_one_table_gives(tmp_path):
    rng = np.random.default_rng(5)
    rows = [
        a_row(Cell("in", f"{i}.png", None, f"slide {i % 3}"), str(label), float(confidence))
        for i, (label, confidence) in enumerate(
            zip(
                rng.choice([*CLASSES, UNIDENTIFIED], 200), rng.random(200).astype("f4"), strict=True
            )
        )
    ]
    write_reports(tmp_path, write_shards(tmp_path, rows, shards=7))

    expected = differential(pd.DataFrame(rows))
    found = read_differential(tmp_path / "differential.csv")
    pd.testing.assert_frame_equal(found, expected, atol=1e-6)


def test_a_group_may_have_any_name(tmp_path):
    names = ["NA", "nan", "001", "", "'quoted'", 'a,"b"', "Färbung 3"]
    cells = [Cell("in", f"{i}.png", None, name) for i, name in enumerate(names)]
    write_reports(tmp_path, write_shards(tmp_path, [a_row(c, "monocyte", 0.5) for c in cells]))
    groups = read_differential(tmp_path / "differential.csv")["group"]
    assert list(dict.fromkeys(groups)) == names


def test_a_run_without_cells_has_reports(tmp_path):
    write_reports(tmp_path, [])
    assert read_csv(tmp_path / "cells.csv") == []
    assert len(read_differential(tmp_path / "differential.csv")) == 0
    print_differential(read_differential(tmp_path / "differential.csv"), Console(quiet=True))
    assert (
        page_of(tmp_path).text.count("For research use only. Not for diagnostic procedures.") == 2
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_run_may_have_a_name_that_is_not_utf8(run):
    run_dir, files = run
    odd = run_dir.rename(os.fsdecode(os.fsencode(run_dir) + b"-M\xfcller"))
    write_reports(odd, [odd / path.relative_to(run_dir) for path in files])
    assert {path.name for path in odd.iterdir()} >= set(REPORTS)
    assert "<h1>" in (odd / "report.html").read_text(encoding="utf-8")


def test_images_of_one_name_have_a_file_each(tmp_path):
    places = ["1/f.png", "2/F.png", "3/f.png-2", "4/f.png"] + [f"{n}/g.png" for n in range(300)]
    row = {"source": "s", "cell_id": "ab", "label": "monocyte"} | dict.fromkeys(BOX_COLUMNS, 1)
    folder = GeoJsonFolder(tmp_path / "geojson")
    for _ in range(2):  # as cells stream by
        folder.add(pd.DataFrame([row | {"member": place} for place in places]))
    folder.finish()
    files = list((tmp_path / "geojson").iterdir())
    assert len({path.name.casefold() for path in files}) == len(places)
    assert all(len(json.loads(path.read_text())["features"]) == 2 for path in files)


def test_names_of_geojson_files_are_short_in_any_script(tmp_path):
    row = {"source": "s", "cell_id": "ab", "label": "monocyte"} | dict.fromkeys(BOX_COLUMNS, 1)
    folder = GeoJsonFolder(tmp_path / "geojson")
    for letter in ("\u8840", "\U00020000", "a"):
        images = [f"{n}/{letter * 84}.png" for n in range(2)]
        folder.add(pd.DataFrame([row | {"member": image} for image in images]))
    folder.finish()
    names = [path.name for path in (tmp_path / "geojson").iterdir()]
    assert len(names) == 6
    assert max(len(name.encode()) for name in names) < 120
    assert any(name.startswith("\u8840" * 33) for name in names)


def test_geojson_files_have_names_that_windows_takes(tmp_path):
    folder = GeoJsonFolder(tmp_path / "geojson")
    names = ("CON", "aux.png", "com1.a.tif", "console.png", "a.con")
    rows = [a_row(Cell("s", name, None, "g"), "monocyte", 0.5) for name in names]
    folder.add(pd.DataFrame(rows).assign(**dict.fromkeys(BOX_COLUMNS, 1)))
    folder.finish()
    assert {path.name.removesuffix(".geojson") for path in (tmp_path / "geojson").iterdir()} == {
        "image-CON", "image-aux.png", "image-com1.a.tif", "console.png", "a.con"
    }  # fmt: skip


@pytest.fixture
def placed(tmp_path):
    row = a_row(Cell("s", "field.png", None, "g"), "monocyte", 0.5)
    table = pa.table(
        {name: [value] for name, value in (row | dict.fromkeys(BOX_COLUMNS, 1)).items()}
    )
    pq.write_table(table, tmp_path / "0.parquet")
    return tmp_path / "0.parquet"


def test_a_geojson_file_that_cannot_be_written_is_the_one_that_is_named(
    tmp_path, placed, monkeypatch
):
    monkeypatch.setattr("wbc_batch.report.geojson.unfinished", lambda _: placed / "no folder")
    with pytest.raises(RunError, match=r"geojson.field\.png\.geojson cannot be used for results"):
        write_reports(tmp_path, [placed])


def test_reports_are_not_written_through_links_that_somebody_else_put_there(tmp_path, placed):
    mine, folder = tmp_path / "mine.txt", tmp_path / "my folder"
    mine.write_text("precious")
    folder.mkdir()
    for name in ("cells.csv", "cells.parquet", "errors.csv", "report.html"):
        (tmp_path / f".{name}.partial").symlink_to(mine)
    (tmp_path / ".geojson.partial").symlink_to(folder)
    write_reports(tmp_path, [placed])
    assert mine.read_text() == "precious"
    assert not list(folder.iterdir())
    assert {path.name for path in tmp_path.iterdir()} >= set(REPORTS)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_shard_is_named_and_nothing_half_written_stays(run):
    run_dir, files = run
    files[1].write_bytes(files[1].read_bytes()[:100])
    with pytest.raises(RunError, match=files[1].name):
        write_reports(run_dir, files)
    assert not {path.name for path in run_dir.iterdir()} & set(REPORTS)
    assert not list(run_dir.glob(".*"))


# --- the page -------------------------------------------------------------------------------------


def test_page_shows_totals_and_percentages(run):
    run_dir, files = run
    write_reports(run_dir, files)
    text = " ".join(page_of(run_dir).text.split())
    assert "For research use only. Not for diagnostic procedures." in text
    assert "Cells 5 Identified 3 60.0 % Unidentified 1 20.0 % Errors 1 20.0 %" in text
    assert "monocyte 100.0 15.8–100.0 2" in text  # two of two in the group "one"
    assert "two/bad.png the file is empty" in text
    assert "Model test-model" in text
    assert "SHA-256 of the weights not recorded" in text


def test_page_shows_crop_and_canonical_crop_of_each_cell(run):
    run_dir, files = run
    write_reports(run_dir, files)
    page = page_of(run_dir)
    originals, canonicals = page.pictures("Crop as given"), page.pictures("Canonical crop")

    assert [image.shape for image in originals] == [(80, 80, 3)] * 3
    assert [image.shape for image in canonicals] == [(64, 64, 3)] * 3
    # The nucleus lies off the middle of the crop, and in the middle of the canonical crop.
    assert originals[0][40, 48].min() > 200
    assert originals[0][46, 30].astype(int) == pytest.approx(COLOUR, abs=15)
    assert canonicals[0][32, 32, 1] < 120


def test_the_least_confident_come_first(run):
    run_dir, files = run
    write_reports(run_dir, files)
    text = page_of(run_dir).text
    assert text.index("b.png") < text.index("a.png")
    assert text.index("guess: basophil") > text.index("Unidentified")


def test_a_long_run_shows_both_ends_of_the_confidence(tmp_path):
    confidences = np.random.default_rng(2).permutation(np.linspace(0.30, 0.98, 69))
    rows = [
        a_row(Cell("gone", f"{c:.2f}.png", None, "g"), "monocyte", float(c)) for c in confidences
    ]
    write_reports(tmp_path, write_shards(tmp_path, rows, shards=5))
    page = page_of(tmp_path)
    shown = [
        attributes["title"] for _, attributes in page.elements if attributes.get("class") == "file"
    ]
    ordered = np.sort(confidences)
    assert shown == [f"gone/{c:.2f}.png" for c in (*ordered[:16], *ordered[-8:])]
    assert (
        "69 cells, mean confidence 0.640, median 0.640; shown are the 16 with the lowest confidence, "
        in page.text
    )
    assert "then the 8 with the highest" in page.text


def test_pictures_keep_to_their_bytes_and_the_least_confident_are_kept(tmp_path, monkeypatch):
    budget = 30_000
    monkeypatch.setattr("wbc_batch.report.page.PICTURE_BYTES", budget)
    rng = np.random.default_rng(3)
    rows = []
    for number in range(30):
        place = tmp_path / "in" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(place), rng.integers(0, 256, (60, 60, 3), np.uint8))
        cell = Cell(str(place.parent), place.name, None, f"slide-{number % 3}")
        rows.append(a_row(cell, "monocyte", 0.9 - number / 100))
    write_reports(tmp_path, write_shards(tmp_path, rows))
    page = page_of(tmp_path)
    pictures = [a["src"] or "" for tag, a in page.elements if tag == "img"]
    assert budget / 2 < sum(map(len, pictures)) <= budget
    shown = [a["title"].split("/")[-1] for _, a in page.elements if a.get("class") == "file"]
    assert shown[:2] == ["27.png", "24.png"]
    assert len(shown) == len(pictures)
    assert page.text.count("with the lowest confidence") == 3


def test_relative_inputs_are_found_from_anywhere(tmp_path):
    draw(tmp_path / "slides" / "a.png")
    run_dir = tmp_path / "run"
    files = write_shards(run_dir, [a_row(Cell("slides", "a.png", None, "slides"), "monocyte", 0.9)])
    (run_dir / "run.json").write_text(json.dumps({"directory": str(tmp_path)}))
    write_reports(run_dir, files)
    assert len(page_of(run_dir).pictures("Crop as given")) == 1


def test_an_image_that_is_gone_leaves_a_placeholder(run):
    run_dir, files = run
    write_reports(run_dir, files)
    page = page_of(run_dir)
    assert page.text.count("No image:") == 1
    assert "gone.png" in page.text


def test_an_image_whose_name_is_not_utf_8_is_not_said_to_be_gone(tmp_path):
    draw(tmp_path / "images" / "1.png")
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "\udcff.png")
    cell = Cell(str(tmp_path / "images"), r"\xff.png", None, "g")  # as tables show it
    run_dir = tmp_path / "run"
    write_reports(run_dir, write_shards(run_dir, [a_row(cell, "monocyte", 0.9)]))
    assert "No image: the file is gone, or its name is not UTF-8" in page_of(run_dir).text


def test_hostile_names_stay_text(tmp_path):
    name = "<script>alert('1')</script>\"onload=\"x.png"
    group = "<img src=x onerror=y>&amp;"
    rows = [
        a_row(Cell("in", name, None, group), "monocyte", 0.5),
        a_row(Cell("in", "fine.png", None, "other"), UNIDENTIFIED, 0.5),
        a_row(Cell("in", name, None, group), None, None, "<b>bad</b>"),
    ]
    run_dir = tmp_path / "<i>run"
    files = write_shards(run_dir, rows)
    (run_dir / "run.json").write_text(json.dumps({"command": ["wbc-batch", "<u>", "a b"]}))
    write_reports(run_dir, files)
    page = page_of(run_dir)

    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "b>", "u", "i"}
    assert [tag for tag, _ in page.elements].count("script") == 1  # the page's own
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    for text in (name, group, "<b>bad</b>", "<i>run", "'<u>' 'a b'"):
        assert text in page.text


def test_page_needs_no_network_and_no_script_but_its_own(run, real_drawings):
    run_dir, files = run
    write_reports(run_dir, files)
    page = page_of(run_dir)
    sources = [
        a[key] or "" for _, a in page.elements for key in ("src", "href", "srcset") if key in a
    ]
    assert {s.split(",")[0] for s in sources if ":" in s} == {"data:image/jpeg;base64"}
    beside = {s for s in sources if ":" not in s and not s.startswith("#")}
    assert {"cells.csv", "cells.parquet", "differential.csv", "errors.csv", "plots/"} <= beside
    assert all((run_dir / name).exists() for name in beside)
    assert {s[1:] for s in sources if s.startswith("#")} <= {a.get("id") for _, a in page.elements}
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.elements}
    raw = (run_dir / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall("<script>(.*?)</script>", raw, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in page.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    raw = re.sub(r'xmlns(:xlink)?="[^"]*"', "", raw)
    assert "http:" not in raw
    assert "https:" not in raw
    assert not re.search(r"url\((?!#)", raw)


def test_many_groups_and_errors_stay_readable(tmp_path):
    rows = [
        a_row(Cell("in", f"{i}.png", None, f"slide-{i}./monocyte"), "monocyte", 0.5)
        for i in range(130)
    ]
    rows += [
        a_row(Cell("in", f"broken-{i}.png", None, "slide-0./monocyte"), None, None, "empty")
        for i in range(230)
    ]
    write_reports(tmp_path, write_shards(tmp_path, rows))
    page = page_of(tmp_path)
    assert [tag for tag, _ in page.elements].count("details") == 100
    text = " ".join(page.text.split())
    assert "30 more groups are listed in" in text
    assert "30 more groups are not listed" in text
    known = {row["known"]: row["monocyte"] for row in read_csv(tmp_path / "confusion.csv")}
    assert known["monocyte"] == "130"
    assert page.text.count("in/broken-") == 200
    assert len(read_csv(tmp_path / "errors.csv")) == 230


def test_the_same_run_gives_the_same_bytes(run):
    run_dir, files = run
    write_reports(run_dir, files)
    before = {name: (run_dir / name).read_bytes() for name in REPORTS}
    write_reports(run_dir, files)
    assert {name: (run_dir / name).read_bytes() for name in REPORTS} == before


@pytest.mark.parametrize(
    "record", ["", "[]", "{", '{"model": 3, "command": null, "started": "soon"}']
)
def test_a_poor_record_does_not_stop_the_page(run, record):
    run_dir, files = run
    (run_dir / "run.json").write_text(record)
    write_reports(run_dir, files)
    page = page_of(run_dir)
    assert "not recorded" in page.text
    assert len(page.pictures("Crop as given")) == 3
    assert not page.pictures("Canonical crop")


# --- terminal -------------------------------------------------------------------------------------


def printed(cells: pd.DataFrame, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        print_differential(differential(cells), console)
    return [line.strip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_shows_groups_and_all_groups(width):
    cells = pd.DataFrame(
        {
            "group": ["[red]1", "[red]1", "two", "two", "two"],
            "label": ["monocyte", "basophil", "monocyte", UNIDENTIFIED, None],
            "confidence": [0.9, 0.5, 0.6, 0.2, None],
        }
    )
    lines = printed(cells, width)
    (one,), (two,), (both,) = (
        [line.split()[-12:] for line in lines if line.startswith(name)]
        for name in ("[red]1", "two", "all groups")
    )
    assert one == ["1", "50.0%", "0", "0.0%", "0", "0.0%", "1", "50.0%", "0", "0.0%", "0", "0"]
    assert two == ["0", "0.0%", "0", "0.0%", "0", "0.0%", "1", "100.0%", "0", "0.0%", "1", "1"]
    assert both == ["1", "33.3%", "0", "0.0%", "0", "0.0%", "2", "66.7%", "0", "0.0%", "1", "1"]
    (mean,) = (line for line in lines if line.startswith("mean"))
    assert mean.removeprefix("mean").removeprefix(" confidence").split() == [
        "0.500",
        "0.750",
        "0.200",
    ]


def test_terminal_cuts_nothing_off_when_it_is_narrow():
    name = "a-folder-with-a-name-that-is-longer-than-any-column"
    labels = [*CLASSES, "neutrophil"] * 3000
    lines = printed(pd.DataFrame({"group": name, "label": labels, "confidence": 0.5}), 80)
    assert max(map(len, lines)) <= 80
    first_words = "".join(line.split()[0] for line in lines[2:] if line)
    assert first_words.startswith(name)
    assert "6,000" in lines[2]
    assert "33.3%" in lines[3]


def test_terminal_names_how_many_groups_it_leaves_out():
    groups = [f"slide-{i}" for i in range(45)]
    lines = printed(pd.DataFrame({"group": groups, "label": "monocyte", "confidence": 0.5}), 120)
    assert sum(line.startswith("slide-") for line in lines) == 40
    assert lines[-3:] == [
        "5 more groups are in differential.csv",
        "",
        "too few cells: slide-0, slide-1, slide-2, slide-3, slide-4 and 40 more",
    ]


def test_terminal_calls_an_unnamed_group_by_the_name_of_the_page():
    cells = pd.DataFrame({"group": ["", "two"], "label": "monocyte", "confidence": 0.5})
    lines = printed(cells, 120)
    assert sum(line.startswith("(no group) ") for line in lines) == 1
    assert lines[-1] == "too few cells: (no group), two"


def test_terminal_obeys_no_name():
    cells = pd.DataFrame(
        {"group": "\x1b]0;mine\x07\x9b", "label": "monocyte", "confidence": 0.5}, [0]
    )
    lines = printed(cells, 120)
    assert sum(line.startswith(r"\x1b]0;mine\x07\x9b ") for line in lines) == 1
    assert lines[-1] == r"too few cells: \x1b]0;mine\x07\x9b"


def test_terminal_says_what_to_look_at():
    labels = ["monocyte"] * 150 + [UNIDENTIFIED] * 50 + ["monocyte"] * 200
    groups = ["[b]one"] * 200 + ["two"] * 200
    cells = pd.DataFrame({"group": groups, "label": labels, "confidence": 0.5})
    novelty = [2.0 if i >= 350 else 0.1 for i in range(400)]
    lines = printed(cells.assign(novelty=novelty), 80)
    assert lines[-2:] == ["many unidentified: [b]one", "looks unlike the training data: two"]
