"""How long it takes to make a canonical crop: python benchmarks/preprocessing.py.

Prints the median CPU time per crop over several rounds, for crops as large as those of PBC
(360 pixels, the cell fills a third) and as small as those of JTSC (120 pixels, the cell fills all),
with the preprocessing of the bundled model. Then how many a second are read from files and prepared on one
thread, on a thread for each core, and in a process for each core.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import inputs
import numpy as np

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.preprocessing import canonical_crop
from wbc_batch.engine.machine import cores
from wbc_batch.sources import attempt_read, list_cells, prepared_crops, prepared_readers
from wbc_batch.sources.ahead import run_ahead
from wbc_batch.sources.rates import reading_rate
from wbc_batch.synthetic import draw_cells

ROUNDS, CELLS = 9, 100
FILES, AHEAD = 4096, 256
PREPROCESSING = read_bundle().preprocessing


def milliseconds(images: list[np.ndarray]) -> float:
    """CPU time per crop, median over crops and rounds."""
    return 1000 * statistics.median(_seconds(image) for _ in range(ROUNDS) for image in images)


def _seconds(image: np.ndarray) -> float:
    fresh = image.copy()  # in the processor's cache, as a picture is that was just decoded
    start = time.process_time()
    canonical_crop(fresh, PREPROCESSING)
    return time.process_time() - start


def rates(tree: Path) -> dict[str, float]:
    """Cells per second from files to canonical crops, medians of some rounds."""
    cells, base = list(list_cells([tree])), Path()

    def threads(count: int) -> Iterator[object]:
        return run_ahead(attempt_read, prepared_readers(cells, PREPROCESSING), count, AHEAD)

    ways: dict[str, Callable[[], Iterator[object]]] = {
        "one thread": lambda: threads(1),
        f"{cores()} threads": lambda: threads(cores()),
        f"{cores()} processes": lambda: prepared_crops(cells, PREPROCESSING, base, cores(), AHEAD),
    }
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + ROUNDS // 2):  # in turn; the first round starts the processes
        for name, way in ways.items():
            measured[name].append(reading_rate(way()))
    return {name: statistics.median(some[1:]) for name, some in measured.items()}


def main() -> None:
    cv2.setNumThreads(1)
    large = list(draw_cells(CELLS, seed=0)[0])
    small = [np.ascontiguousarray(image[120:240, 120:240]) for image in large]
    for name, images in (("360 px", large), ("120 px", small)):
        print(f"{name}: {milliseconds(images):.2f} ms per crop")
    with TemporaryDirectory() as scratch:
        files = inputs.images(None, Path(scratch))
        tree = inputs.linked_tree(files, FILES, Path(scratch) / "slides")
        for name, rate in rates(tree).items():
            print(f"{name}: {rate:.0f} cells/s")


if __name__ == "__main__":
    main()
