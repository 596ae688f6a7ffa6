"""How long it takes to make a canonical crop, on one core: python benchmarks/preprocessing.py.

Prints the median CPU time per crop over several rounds, for crops as large as those of PBC
(360 pixels, the cell fills a third) and as small as those of JTSC (120 pixels, the cell fills all),
with the preprocessing of the bundled model.
"""

import statistics
import time

import cv2
import numpy as np

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.preprocessing import canonical_crop
from wbc_batch.synthetic import draw_cells

ROUNDS, CELLS = 9, 100
PREPROCESSING = read_bundle().preprocessing


def milliseconds(images: list[np.ndarray]) -> float:
    """CPU time per crop, median over crops and rounds."""
    return 1000 * statistics.median(_seconds(image) for _ in range(ROUNDS) for image in images)


def _seconds(image: np.ndarray) -> float:
    fresh = image.copy()  # in the processor's cache, as a picture is that was just decoded
    start = time.process_time()
    canonical_crop(fresh, PREPROCESSING)
    return time.process_time() - start


def main() -> None:
    cv2.setNumThreads(1)
    large = list(draw_cells(CELLS, seed=0)[0])
    small = [np.ascontiguousarray(image[120:240, 120:240]) for image in large]
    for name, images in (("360 px", large), ("120 px", small)):
        print(f"{name}: {milliseconds(images):.2f} ms per crop")


if __name__ == "__main__":
    main()
