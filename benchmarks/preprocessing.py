"""How long it takes to make a canonical crop, on one core: python benchmarks/preprocessing.py.

Prints the median over several rounds of the CPU time per crop, for crops as large as those of PBC
(360 pixels, the cell fills a third) and as small as those of JTSC (120 pixels, the cell fills all).
"""

import statistics
import time

import cv2
import numpy as np

from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop
from wbc_batch.synthetic import draw_cells

ROUNDS, CELLS = 9, 100


def milliseconds(images: list[np.ndarray]) -> float:
    """CPU time per crop, median of the rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for image in images:
            canonical_crop(image, Preprocessing())
        rounds.append((time.process_time() - start) / len(images))
    return 1000 * statistics.median(rounds)


def main() -> None:
    cv2.setNumThreads(1)
    large = list(draw_cells(CELLS, seed=0)[0])
    small = [np.ascontiguousarray(image[120:240, 120:240]) for image in large]
    for name, images in (("360 px", large), ("120 px", small)):
        print(f"{name}: {milliseconds(images):.2f} ms per crop")


if __name__ == "__main__":
    main()
