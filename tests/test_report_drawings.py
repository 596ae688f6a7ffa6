"""The drawings of a report show the figures of its tables."""

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from report_runs import a_row, finished_run

from wbc_batch.ledger import committed_shards
from wbc_batch.pages.drawing import INK, inline_svg, to_png, to_svg
from wbc_batch.report import agreement, differential, read_profile
from wbc_batch.report.confusion import Confusion
from wbc_batch.report.drawings import confusion, differential_bars, shares, throughput
from wbc_batch.report.throughput import ShardPace, read_paces
from wbc_batch.schema import CLASSES, SHARDS, UNIDENTIFIED
from wbc_batch.sources import Cell

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def table():
    rng = np.random.default_rng(4)
    cells = {"group": rng.choice(["a", "b"], 300), "confidence": rng.random(300)}
    cells["label"] = rng.choice([*CLASSES, UNIDENTIFIED], 300)
    known = Confusion(tuple(map(tuple, (50 * np.eye(5, dtype=int) + 2).tolist())), (), (), None)
    return differential(pd.DataFrame(cells), known)


def test_stacked_bars_are_the_percentages(table) -> None:
    (axes,) = shares(table).axes
    widths = [patch.get_width() for patch in axes.patches]  # class by class
    expected = table[table["label"].isin(CLASSES)]["percent"].to_numpy().reshape(2, 5).T.ravel()
    np.testing.assert_allclose(widths, expected)
    starts = [patch.get_x() for patch in axes.patches]
    np.testing.assert_allclose(starts[-2:], 100 - expected[-2:])


def test_names_in_a_drawing_stay_as_they_are_on_a_page() -> None:
    names = [INK, 'id="x" href="#y"', "url(#z) <b>", ""]
    cells = pd.DataFrame({"group": names, "label": "monocyte", "confidence": 0.9})
    svg = to_svg(lambda: shares(differential(cells)))
    inline = inline_svg(svg, "shares")
    shown = [element.text for element in ElementTree.fromstring(inline).iter(f"{SVG}text")]
    assert [text for text in shown if text in (*names, "(no group)")] == [*names[:-1], "(no group)"]
    assert "fill: var(--ink)" in inline
    assert 'id="shares-axes_1"' in inline
    assert f"fill: {INK}" not in inline


@pytest.mark.filterwarnings("error")
def test_letters_that_a_font_lacks_are_drawn_without_a_word() -> None:
    cells = pd.DataFrame({"group": ["\u60a3\u8005\t1"], "label": "monocyte", "confidence": 0.9})
    drawn = to_png(lambda: shares(differential(cells)))
    assert drawn.startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [shares, partial(differential_bars, profile=None)])
def test_a_drawing_is_xml_whatever_a_group_is_called(draw) -> None:
    table = differential(
        pd.DataFrame({"group": ["a\x07\x1b\uffff\u00e4"], "label": "monocyte", "confidence": 0.9})
    )
    drawn = ElementTree.fromstring(to_svg(lambda: draw(table)))
    assert "a\ufffd\ufffd\ufffd\u00e4" in [text.text for text in drawn.iter(f"{SVG}text")]


def test_bars_of_a_group_carry_both_pairs_of_limits_and_the_range(table) -> None:
    rows = table[table["group"] == "b"].set_index("label").loc[list(CLASSES)]
    profile = read_profile("uchicago")
    (axes,) = differential_bars(table[table["group"] == "b"], profile).axes
    drawn = [
        collection.get_segments()
        for collection in axes.collections
        if isinstance(collection, LineCollection)
    ]
    for segments, prefix in zip(drawn, ("", "confusion_"), strict=True):
        ends = np.array([[segment[0][0], segment[1][0]] for segment in segments])
        np.testing.assert_allclose(ends, rows[[f"{prefix}lower", f"{prefix}upper"]])
    widths = [patch.get_width() for patch in axes.patches]
    ranges = [profile.percent[label] for label in CLASSES]
    np.testing.assert_allclose(widths[:5], [range_.upper - range_.lower for range_ in ranges])
    np.testing.assert_allclose(widths[5:], rows["percent"])


def test_the_pace_of_a_run_is_that_of_all_its_cells(tmp_path: Path) -> None:
    (axes,) = throughput([ShardPace(0, 100, 2.0), ShardPace(1, 500, 2.0)]).axes
    points, mean = axes.lines
    assert list(points.get_ydata()) == [50.0, 250.0]
    assert list(mean.get_ydata()) == [150.0, 150.0]
    rows = [a_row(Cell("in", f"{i}.png", None, "g"), "monocyte", 0.5) for i in range(6)]
    run = finished_run(tmp_path / "run", rows)  # two shards, half a second each
    files = committed_shards(run)
    assert read_paces(files) == [ShardPace(0, 3, 0.5), ShardPace(1, 3, 0.5)]
    note = next((run / SHARDS).glob("000001*.json"))
    note.write_text(json.dumps({"number": 1, "cells": 3}))
    assert read_paces(files) == [ShardPace(0, 3, 0.5)]


def test_the_confusion_matrix_is_drawn_with_its_counts() -> None:
    found = agreement(["basophil"] * 4 + ["monocyte"], ["basophil"] * 3 + ["neutrophil"] * 2)
    (axes,) = confusion(found).axes
    texts = {text.get_position(): text.get_text() for text in axes.texts if text.get_text()}
    assert texts == {(0, 0): "3\n75 %", (4, 0): "1\n25 %", (4, 3): "1\n100 %"}
