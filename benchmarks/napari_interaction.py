"""Measure the review in napari with many cells: opening a run, giving labels, filling the gallery.

    python benchmarks/napari_interaction.py [CELLS]

A run directory of drawn cells (10,000 rows, 50 files) is made, opened by the reader and reviewed in
the dock, in a real window: it needs an X server (`xvfb-run`).
"""

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wbc_batch.report import write_reports
from wbc_batch.report.tables import CELL_SCHEMA
from wbc_batch.schema import CLASSES, PROBABILITY_COLUMNS
from wbc_batch.sources import Cell
from wbc_batch.synthetic import draw_cells


def make_run(folder, count):
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


def milliseconds(act, times):
    """Median and worst duration of some calls, with all that Qt does for them."""
    from qtpy.QtWidgets import QApplication

    taken = []
    for number in range(times):
        began = time.perf_counter()
        act(number)
        QApplication.processEvents()
        taken.append(1000 * (time.perf_counter() - began))
    return f"median {np.median(taken):.1f} ms, worst {max(taken):.1f} ms"


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    import napari

    from wbc_napari.review import REVIEW_LABELS
    from wbc_napari.station import StationWidget

    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name), count)
        viewer = napari.Viewer()
        station = StationWidget(viewer)
        viewer.window.add_dock_widget(station)
        began = time.perf_counter()
        viewer.open(str(run), plugin="wbc-napari")
        print(f"{count} cells: run opened in {time.perf_counter() - began:.2f} s")
        session = station.session
        for page in ("Review", "Gallery", "Report"):
            titles = [station.tabs.tabText(k) for k in range(station.tabs.count())]
            station.tabs.setCurrentIndex(titles.index(page))

            def label(number):
                session.relabel([session.row], REVIEW_LABELS[number % 5])

            def label_and_go_on(number):
                label(number)
                session.step(1)

            print(f"{page}: relabel {milliseconds(label, 50)}")
            print(f"{page}: relabel and next cell {milliseconds(label_and_go_on, 50)}")
        began = time.perf_counter()
        for label_name in REVIEW_LABELS:
            station.gallery.show_label(label_name)
        print(f"gallery of six classes: {1000 * (time.perf_counter() - began):.0f} ms")
        viewer.close()


if __name__ == "__main__":
    main()
