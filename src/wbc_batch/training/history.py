"""What happened in each epoch: a table and a picture."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from wbc_batch.files import write_file

__all__ = ["History"]


class History:
    """The epochs of one training, counted from 1, written as they come.

    Parameters
    ----------
    output : Path
        Directory for ``history.csv`` and ``history.png``.
    keep : {"best", "last"}
        Which epoch is kept.
    """

    def __init__(self, output: Path, keep: str = "best") -> None:
        self._output = output
        self._keep = keep
        self._rows: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[dict[str, float]]:
        """A row per epoch."""
        return list(self._rows)

    @property
    def kept_epoch(self) -> int:
        """The last epoch, or that of highest balanced accuracy, the latest of equals."""
        if self._keep == "last":
            return len(self)
        return max(range(1, len(self) + 1), key=lambda epoch: (self._reached(epoch), epoch))

    @property
    def without_gain(self) -> int:
        """Epochs since the balanced accuracy last rose above all before."""
        if not self._rows:
            return 0
        return len(self) - max(range(1, len(self) + 1), key=self._reached)

    def add(self, row: dict[str, float]) -> bool:
        """Add an epoch and say whether it is the one to keep so far."""
        self._rows.append(row)
        return self.kept_epoch == len(self)

    def go_on(self, rows: Iterable[dict[str, float]]) -> None:
        """Take over the epochs of an earlier part of the training."""
        self._rows = list(rows)

    def write(self) -> None:
        """Write ``history.csv``."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._rows[0])
        writer.writeheader()
        writer.writerows(self._rows)
        write_file(self._output / "history.csv", text.getvalue().encode())

    def plot(self) -> None:
        """Draw loss and validation accuracies over the epochs into ``history.png``."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in self._rows]
        left.plot(epochs, [row["loss"] for row in self._rows], marker=".")
        left.set(xlabel="epoch", ylabel="training loss")
        for key in self._rows[0]:
            if key.startswith(("accuracy", "balanced")):
                values = [100 * row[key] for row in self._rows]
                right.plot(epochs, values, marker=".", label=key.replace("_", " "))
        right.axvline(self.kept_epoch, color="0.7", linewidth=1, zorder=0)
        right.set(xlabel="epoch", ylabel="validation, %")
        right.legend()
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        picture = io.BytesIO()
        figure.savefig(picture, dpi=120)
        write_file(self._output / "history.png", picture.getbuffer())

    def _reached(self, epoch: int) -> float:
        return self._rows[epoch - 1]["balanced_accuracy"]
