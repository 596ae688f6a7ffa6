"""What tests of training share: drawn cells in class folders, and a network small enough for a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest

from wbc_batch import files
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cell
from wbc_batch.training.history import History
from wbc_batch.training.settings import Settings

SMALL = Settings(
    arguments={"widths": [16, 16, 32, 32], "dropout": 0.1},
    preprocessing=Preprocessing(size=40),
    batch_size=16,
    averaging=0.8,
    device="cpu",
)


def write_cells(folder: Path, per_class: int, seed: int, size: int = 160) -> Path:
    """Draw cells into a folder per class, from so many seeds on; other seeds, other pictures."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for n in range(per_class):
            image = draw_cell(label, seed + n, size=size)
            assert cv2.imwrite(str(folder / label / f"cell-{n}.png"), image[..., ::-1])
    return folder


@contextmanager
def blank_histories() -> Iterator[None]:
    """Leave the pictures of histories empty: to draw one takes longer than a small training."""

    def plot(history: History) -> None:
        files.write_file(history._output / "history.png", b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "plot", plot)
        yield
