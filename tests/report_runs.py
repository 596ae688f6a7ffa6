"""Runs as tests make them, and reports as tests read them."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wbc_batch.ledger import ShardResult, commit
from wbc_batch.report.drawings import Drawing
from wbc_batch.schema import CELL_COLUMNS, PROBABILITY_COLUMNS, SHARDS, UNIDENTIFIED
from wbc_batch.sources import Cell


def a_row(
    cell: Cell, label: str | None, confidence: float | None, error: str | None = None
) -> dict:
    share = None if confidence is None else (1 - confidence) / 4
    row = dict.fromkeys(CELL_COLUMNS) | dict.fromkeys(PROBABILITY_COLUMNS, share)
    row |= {"cell_id": cell.cell_id, "source": cell.source, "member": cell.member}
    row |= {"index": cell.index, "group": cell.group, "status": "error" if error else "ok"}
    row |= {"label": label, "confidence": confidence, "margin": share, "novelty": share}
    guess = "basophil" if label == UNIDENTIFIED else label
    return row | {"predicted": guess, "error": error}


def write_shards(run_dir: Path, rows: list[dict], shards: int = 2) -> list[Path]:
    run_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for number, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
        columns = {name: [rows[i][name] for i in part] for name in CELL_COLUMNS}
        files.append(run_dir / f"{number:06d}.parquet")
        pq.write_table(pa.table(columns), files[-1])
    return files


COLOUR = (100, 40, 140)


def draw(path: Path, colour: tuple[int, int, int] = COLOUR) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((80, 80, 3), 240, np.uint8)
    cv2.circle(image, (30, 46), 12, colour[::-1], -1)
    assert cv2.imwrite(str(path), image)


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text without them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + " "

    def pictures(self, alt: str) -> list[np.ndarray]:
        found = [a for tag, a in self.elements if tag == "img" and a["alt"] == alt]
        data = [
            base64.b64decode((a["src"] or "").removeprefix("data:image/jpeg;base64,"))
            for a in found
        ]
        return [cv2.imdecode(np.frombuffer(item, np.uint8), cv2.IMREAD_COLOR_RGB) for item in data]


def page_of(folder: Path, name: str = "report.html") -> Page:
    return Page((folder / name).read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def finished_run(
    run_dir: Path, rows: list[dict], columns: tuple[str, ...] = CELL_COLUMNS, **record: object
) -> Path:
    """Write a run directory as `wbc-batch classify` leaves it, without reports."""
    (run_dir / SHARDS).mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(len(rows)), 2)):
        table = pa.table({name: [rows[i].get(name) for i in part] for name in columns})
        file = io.BytesIO()
        pq.write_table(table, file)
        data = file.getvalue()
        stem = f"{number:06d}-test"
        result = ShardResult(
            f"{number}",
            number,
            f"{stem}.parquet",
            len(data),
            len(part),
            0,
            {},
            "cpu",
            "fp32",
            "torch",
            0.5,
        )
        commit(run_dir / SHARDS, result, data)
    content = {"state": "finished", "cells": len(rows), "command": "wbc-batch classify x"} | record
    (run_dir / "run.json").write_text(json.dumps(content))
    return run_dir


def write_blanks(folder: Path, drawings: Sequence[Drawing]) -> dict[str, bytes]:
    """Stand in for `wbc_batch.report.drawings.write_drawings` where a test is not about drawings."""
    folder.mkdir(exist_ok=True)
    for drawing in drawings:
        (folder / f"{drawing.name}.svg").write_bytes(b"<svg/>")
    return {drawing.name: b"<svg/>" for drawing in drawings}
