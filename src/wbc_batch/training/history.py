"""What happened in each epoch: a table and a picture."""

import csv
from pathlib import Path

__all__ = ["History"]


class History:
    """The epochs of one training, written as they come.

    Parameters
    ----------
    output : Path
        Directory for ``history.csv`` and ``history.png``; made if it is not there.
    """

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._output = output
        self._rows: list[dict[str, float]] = []

    @property
    def best_epoch(self) -> int:
        """The epoch of highest balanced accuracy, the latest of equals."""
        return max(range(len(self._rows)), key=lambda n: (self._rows[n]["balanced_accuracy"], n))

    def add(self, row: dict[str, float]) -> bool:
        """Add an epoch and say whether it is the best so far."""
        self._rows.append(row)
        with (self._output / "history.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(self._rows)
        return self.best_epoch == len(self._rows) - 1

    def plot(self) -> None:
        """Draw loss and validation accuracies over the epochs."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = [row["epoch"] for row in self._rows]
        left.plot(epochs, [row["loss"] for row in self._rows])
        left.set(xlabel="epoch", ylabel="training loss")
        for key in self._rows[0]:
            if key.startswith(("accuracy", "balanced")):
                values = [100 * row[key] for row in self._rows]
                right.plot(epochs, values, label=key.replace("_", " "))
        right.axvline(self.best_epoch, color="0.7", linewidth=1, zorder=0)
        right.set(xlabel="epoch", ylabel="validation, %")
        right.legend()
        figure.savefig(self._output / "history.png", dpi=120)
