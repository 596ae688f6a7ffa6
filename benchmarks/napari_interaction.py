"""Measure the review in napari with many cells: opening a run, giving labels, filling the gallery.

    python benchmarks/napari_interaction.py [CELLS]

A run directory of drawn cells (10,000 rows, 50 files) is made, opened by the reader and reviewed in
the dock, in a real window: it needs an X server (`xvfb-run`). Three times are taken of each act: until the
call, or the handler of the key, has returned; until the window shows the canvas painted after it
(`QOpenGLWidget.frameSwapped`); until Qt has nothing left to do, pictures in the dock included. The last line
is what napari takes for the next cell with the dock closed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wbc_batch.ledger import CELL_SCHEMA
from wbc_batch.report import write_reports
from wbc_batch.schema import CLASSES, PROBABILITY_COLUMNS
from wbc_batch.sources import Cell
from wbc_batch.synthetic import draw_cells

if TYPE_CHECKING:
    import napari

#: Cells that it takes to step through, so that each step shows another one.
LEAST = 250


def make_run(folder: Path, count: int) -> Path:
    """Write a run directory of so many cells."""
    crops, _ = draw_cells(50, size=200)
    (folder / "cells").mkdir(parents=True)
    for number, crop in enumerate(crops):
        cv2.imwrite(str(folder / "cells" / f"{number:03d}.png"), crop[..., ::-1])
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.3), count).astype(np.float32)
    best = np.asarray(CLASSES)[probabilities.argmax(axis=1)]
    ordered = np.sort(probabilities, axis=1)
    members = [f"{number % 50:03d}.png" for number in range(count)]
    cells = pd.DataFrame(
        {
            "cell_id": [Cell("cells", m, n, "g").cell_id for n, m in enumerate(members)],
            "source": str(folder / "cells"),
            "member": members,
            "index": None,
            "group": "slide",
            "status": "ok",
            "label": best,
            "predicted": best,
            "confidence": ordered[:, -1],
            "margin": ordered[:, -1] - ordered[:, -2],
            "novelty": rng.uniform(0, 1.2, count).astype(np.float32),
            **dict(zip(PROBABILITY_COLUMNS, probabilities.T, strict=True)),
            "error": None,
        }
    )
    run = folder / "run"
    (run / "shards").mkdir(parents=True)
    shard = run / "shards" / "0.parquet"
    pq.write_table(pa.Table.from_pandas(cells, CELL_SCHEMA, preserve_index=False), shard)
    write_reports(run, [shard])
    return run


class Stopwatch:
    """Times what a user waits for, on a canvas in a real window."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._swapped = False
        self._canvas.frameSwapped.connect(self._on_swapped)

    def _on_swapped(self) -> None:
        self._swapped = True

    def press(self, key: str) -> None:
        """Press a key on the canvas."""
        from qtpy.QtTest import QTest

        QTest.keyClick(self._canvas, key)

    def times(self, act: Callable[[int], object], times: int) -> str:
        """Milliseconds until the call returns, until the canvas is on the screen, until all is done."""
        from qtpy.QtWidgets import QApplication

        taken = []
        for number in range(times):
            QApplication.processEvents()
            self._swapped, began = False, time.perf_counter()
            act(number)
            marks = [time.perf_counter()]
            while not self._swapped:
                QApplication.processEvents()
            marks.append(time.perf_counter())
            QApplication.processEvents()
            marks.append(time.perf_counter())
            taken.append([1000 * (mark - began) for mark in marks])
        middle, worst = np.median(taken, axis=0), np.max(taken, axis=0)
        parts = zip(("returned", "painted", "all done"), middle, worst, strict=True)
        return ", ".join(f"{name} {m:.1f} (worst {w:.1f})" for name, m, w in parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", type=int, nargs="?", default=10_000, help="%(default)s")
    count = parser.parse_args().cells
    if count < LEAST:
        parser.error(f"{count} cells are too few; name {LEAST} or more")
    import napari

    from wbc_batch.schema import LABELS
    from wbc_napari.station import StationWidget

    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name), count)
        viewer = napari.Viewer()
        station = StationWidget(viewer)
        viewer.window.add_dock_widget(station)
        began = time.perf_counter()
        viewer.open(str(run), plugin="wbc-napari")
        print(f"{count} cells: run opened in {time.perf_counter() - began:.2f} s; milliseconds:")
        session, watch = station.session, Stopwatch(viewer)
        assert session
        for page in (station.review, station.gallery, station.report):
            station.tabs.setCurrentWidget(page)
            title = station.tabs.tabText(station.tabs.currentIndex())

            def label(number: int) -> None:
                session.relabel([session.row], LABELS[number % 5])

            def key(number: int) -> None:
                watch.press(str(number % 5 + 1))

            print(f"{title}: relabel: {watch.times(label, 50)}")
            print(f"{title}: key (relabel, next cell): {watch.times(key, 50)}")
        station.tabs.setCurrentWidget(station.gallery)
        began = time.perf_counter()
        for label_name in LABELS:
            station.gallery.show_label(label_name)
        print(f"gallery of six classes: {1000 * (time.perf_counter() - began):.0f}")
        viewer.window.remove_dock_widget(station)
        step = viewer.dims.set_current_step
        print(f"napari alone, next cell: {watch.times(lambda n: step(0, 200 + n), 50)}")
        viewer.close()


if __name__ == "__main__":
    main()
