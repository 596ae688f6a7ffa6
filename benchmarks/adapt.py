"""What a few cells of one's own laboratory are worth: python benchmarks/adapt.py FOLDER [options].

FOLDER has one folder per class. Of each class, 20 cells (or half of them, where there are fewer than 40) are
given to ``wbc-batch train --init MODEL``; the model is measured on the others before and after. A class of a
single cell gives none. Which cells are given is drawn by the seed; the last lines have the medians.
``--also`` measures what the training costs elsewhere, ``--replay`` trains on other cells as well.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wbc_batch.classifier import Classifier
from wbc_batch.datasets.labelled import LabelledCells, read_dataset, select
from wbc_batch.datasets.naming import named_folders
from wbc_batch.schema import CLASSES
from wbc_batch.training.folders import train_folders
from wbc_batch.training.settings import choose


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--cells", type=int, default=20, help="per class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--freeze", default="none")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--also", metavar="[NAME=]FOLDER", action="append", default=[])
    parser.add_argument("--replay", metavar="[NAME=]FOLDER", action="append", default=[])
    return parser.parse_args()


def draw(cells: LabelledCells, count: int, seed: int) -> np.ndarray:
    """Choose the cells that are given: bool, shape (N,)."""
    rng = np.random.default_rng(seed)
    given = np.zeros(len(cells), bool)
    for k in range(len(CLASSES)):
        places = rng.permutation(np.flatnonzero(cells.labels == k))
        given[places[: min(count, len(places) // 2)]] = True
    return given


def accuracy(model: Classifier, cells: LabelledCells) -> tuple[float, float]:
    """Accuracy, and mean recall of the classes with five cells or more, per cent."""
    guess = model.predict_prepared(cells.crops, cells.sizes).probabilities.argmax(axis=1)
    right = guess == cells.labels
    there = np.flatnonzero(np.bincount(cells.labels) >= 5)
    recalls = [right[cells.labels == k].mean() for k in there]
    return 100 * float(right.mean()), 100 * float(np.mean(recalls))


def adapt(
    options: argparse.Namespace, cells: LabelledCells, given: np.ndarray, seed: int
) -> Classifier:
    """Train the model on, by the very function that the command line calls."""
    with tempfile.TemporaryDirectory() as directory:
        own = Path(directory, "own")
        for place in np.flatnonzero(given):
            source = (options.folder / cells.members[place]).resolve()
            link = own / CLASSES[cells.labels[place]] / source.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
        settings = choose(
            None,
            options.model,
            freeze=options.freeze,
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            seed=seed,
        )
        data = {"own": own} | named_folders(options.replay, "train")
        bundle = train_folders("adapted", data, {}, Path(directory, "training"), settings)
        return Classifier.load(bundle.path)


def main() -> None:
    options = arguments()
    before = Classifier.load(options.model)
    preprocessing = before.bundle.preprocessing
    cells = read_dataset("own", options.folder, preprocessing)
    others = {
        name: read_dataset(name, place, preprocessing)
        for name, place in named_folders(options.also, "test").items()
    }
    rows = []
    for seed in range(options.seeds):
        given = draw(cells, options.cells, seed)
        after = adapt(options, cells, given, seed)
        parts = {"the rest": select(cells, ~given)} | others
        figures = [(*accuracy(before, part), *accuracy(after, part)) for part in parts.values()]
        rows.append(figures)
        counts = np.bincount(cells.labels[given], minlength=len(CLASSES)).tolist()
        print(f"seed {seed}: given {given.sum()} {counts}, rest {(~given).sum()}", flush=True)
        show(list(parts), figures)
    print(f"median of {options.seeds} seeds")
    show(
        ["the rest", *others],
        [
            tuple(statistics.median(row[n][i] for row in rows) for i in range(4))
            for n in range(1 + len(others))
        ],
    )


def show(names: list[str], figures: Sequence[tuple[float, ...]]) -> None:
    for name, (was, was_balanced, now, now_balanced) in zip(names, figures, strict=True):
        print(
            f"  {name}: accuracy {was:.1f} -> {now:.1f} %, "
            f"balanced {was_balanced:.1f} -> {now_balanced:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
