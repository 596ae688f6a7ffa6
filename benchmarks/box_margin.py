"""Measure how much of the surroundings of a box should be read with it.

    python benchmarks/box_margin.py ../shared/data

Leukocytes are found in fields of view (BCCD), and in single pictures (PBC, Raabin) as if they were fields;
each box is read with room around it, and classified by the bundled model. What `Box.with_room` does is one of
the columns. In the last rows a cell of another picture is pasted right beside each of PBC: the worst
neighbour that there can be.

The folder is laid out as docs/development.md says. Labels of the fields are those of the crops
``bccd/*/NAME_1.jpg``.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from field import fields, overlaps
from numpy.typing import NDArray

from wbc_batch.classifier import Classifier
from wbc_batch.classifier.field import find_cells
from wbc_batch.classifier.images import as_rgb
from wbc_batch.schema import UNIDENTIFIED
from wbc_batch.sources import decode, read_file

_Cells = list[tuple[NDArray[np.uint8], NDArray, str]]

ROOMS = (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35)


def of_fields(folder: Path) -> _Cells:
    """Return image, box that was found, and label of each annotated leukocyte."""
    labels = {path.stem[:-2]: path.parent.name for path in (folder / "bccd").glob("*/*_1.*")}
    cells = []
    for name, image, true in fields(folder / "fields"):
        found = find_cells(image)
        for overlap in overlaps(found, true).T if name in labels and len(found) else ():
            if overlap.max() >= 0.5:
                cells.append((image, found[overlap.argmax()], labels[name]))
    return cells


def of_pictures(folder: Path) -> _Cells:
    """Return image, box in its middle, and label of each picture of one cell."""
    cells = []
    for path in sorted(folder.glob("*/*")):
        image = as_rgb(decode(read_file(path)))
        middle = np.array(image.shape[1::-1]) / 2
        boxes = find_cells(image)
        here = ((boxes[:, :2] <= middle) & (middle <= boxes[:, :2] + boxes[:, 2:])).all(axis=1)
        if here.any():
            cells.append(
                (image, max(boxes[here], key=lambda box: box[2] * box[3]), path.parent.name)
            )
    return cells


def crowded(cells: _Cells) -> _Cells:
    """Paste a cell of another picture right beside each."""
    others = np.random.default_rng(0).permutation(len(cells))
    pasted = []
    for (image, box, label), other in zip(cells, others, strict=True):
        from_image, (left, top, width, height), _ = cells[other]
        x, y = box[0] + box[2], max(box[1] + (box[3] - height) // 2, 0)
        image = image.copy()
        place = image[y : y + height, x : x + width]
        place[:] = from_image[top : top + place.shape[0], left : left + place.shape[1]]
        pasted.append((image, box, label))
    return pasted


def read(image: NDArray[np.uint8], box: NDArray, room: float) -> NDArray[np.uint8]:
    """Cut a box out with room on each side, in parts of its longer side."""
    x, y, width, height = box
    more = round(room * max(width, height))
    return image[max(y - more, 0) : y + height + more, max(x - more, 0) : x + width + more]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    classifier = Classifier.load(device="cpu")
    pbc = of_pictures(folder / "pbc" / "val")
    sets = {
        "fields": of_fields(folder),
        "raabin": of_pictures(folder / "raabin"),
        "pbc/val": pbc,
        "pbc/val, crowded": crowded(pbc),
    }
    if missing := [name for name, cells in sets.items() if not cells]:
        sys.exit(
            f"{folder} holds no cells for {', '.join(missing)}; docs/development.md has its layout"
        )
    print("room:", *ROOMS, sep="\t")
    for name, cells in sets.items():
        truth = np.array([label for _, _, label in cells])
        results = [
            classifier.predict([read(image, box, room) for image, box, _ in cells])
            for room in ROOMS
        ]
        print(f"{name}, {len(cells)} cells")
        right = [100 * (found.predicted == truth).mean() for found in results]
        print("  best guess right, %", *(f"{share:.1f}" for share in right), sep="\t")
        identified = [100 * (found.label != UNIDENTIFIED).mean() for found in results]
        print("  identified, %", *(f"{share:.1f}" for share in identified), sep="\t")
        known = [(found.label == truth)[found.label != UNIDENTIFIED].mean() for found in results]
        print("  of these right, %", *(f"{100 * share:.1f}" for share in known), sep="\t")


if __name__ == "__main__":
    main()
