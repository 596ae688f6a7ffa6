"""What was prepared, as a table on a terminal."""

from collections import Counter
from collections.abc import Iterable

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from wbc_batch.datasets.class_folders import OUT_OF_CLASS
from wbc_batch.datasets.prepare import PreparedDataset
from wbc_batch.datasets.splits import ASIDE, SHIFTED, TEST, TRAIN, VALIDATION
from wbc_batch.errors import visible
from wbc_batch.schema import CLASSES

__all__ = ["print_prepared", "warnings"]

_OF_CLASSES = (TRAIN, VALIDATION, TEST, SHIFTED)


def print_prepared(dataset: PreparedDataset, console: Console) -> None:
    """Print the cells of each split by source and class, and the share of each class in the split.

    Parameters
    ----------
    dataset : PreparedDataset
    console : rich.console.Console
    """
    counts = dataset.counts()
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("split", no_wrap=True)
    table.add_column("source")
    for heading in ("cells", *(name[:4] for name in CLASSES)):
        table.add_column(heading, justify="right", no_wrap=True)
    for split in _OF_CLASSES:
        _add_split(table, split, counts)
    console.print(table)
    other = Counter({k[2]: n for k, n in counts.items() if k[0] == OUT_OF_CLASS})
    if other:
        kinds = ", ".join(f"{label} {number:,}" for label, number in sorted(other.items()))
        console.print(visible(f"{OUT_OF_CLASS}: {kinds}"), highlight=False, markup=False)


def warnings(dataset: PreparedDataset) -> list[str]:
    """Say what is not as one would expect, a line each."""
    lines = [str(difference) for difference in dataset.differences]
    for split in ASIDE:
        files = [cell.file for cell in dataset.aside() if cell.split == split]
        if files:
            why = (
                "copies of images in other splits"
                if split == "duplicate"
                else "images with two labels"
            )
            lines.append(
                f"{len(files):,} {why} were set aside (split {split!r}), for example {files[0].path}"
            )
    kept = [cell for cell in dataset.cells if cell.split not in ASIDE]
    images = {(cell.split, cell.sha256) for cell in kept}
    if len(images) < len(kept):
        lines.append(
            f"{len(kept) - len(images):,} images are copies of others in the same split but count as "
            "separate cells; copies have the same sha256 in the manifest"
        )
    counts = dataset.counts()
    for split in (TRAIN, VALIDATION, TEST):
        there = {label for (name, _, label) in counts if name == split}
        missing = [label for label in CLASSES if label not in there]
        if there and missing:
            lines.append(f"the split {split!r} has no {', '.join(missing)}")
    return lines


def _add_split(table: Table, split: str, counts: Counter[tuple[str, str, str]]) -> None:
    sources = sorted({source for (name, source, _) in counts if name == split})
    if not sources:
        return
    table.add_section()
    for n, source in enumerate(sources):
        numbers = [counts[split, source, label] for label in CLASSES]
        table.add_row("" if n else split, visible(source), *_formatted(numbers))
    total = [sum(counts[split, source, label] for source in sources) for label in CLASSES]
    if len(sources) > 1:
        table.add_row("", "all", *_formatted(total))
    shares = (f"{100 * number / sum(total):.1f} %" for number in total)
    table.add_row("", "", "", *shares, style="dim")


def _formatted(numbers: list[int]) -> Iterable[str]:
    return (f"{number:,}" for number in (sum(numbers), *numbers))
