"""How fast cells are classified, and against what: python benchmarks/speed.py [FOLDER] [--timm inference.py].

On the same files and cores, in turn, round after round: this package with some backends and precisions from
a folder, a ZIP archive and packed zarr stores, without and with canonical crops, its bounds (only decoding
and preparing; only the network), and the ways of `rivals.py`. The files are those of FOLDER that have the
most frequent size, or drawn cells, linked many times. Prints medians of images per second with their range.
Workers and networks are warm, and a way takes as many files as it does in some seconds; the row "command" is
all that a user waits for, with start and report.

Then what Dask costs, measured as `engine.py` does, and what comes of it all beside the targets.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import engine
import loads
import rivals
import torch
from ways import Ours, only_predict, only_prepare

from wbc_batch.classifier import read_bundle
from wbc_batch.engine.clusters import cores
from wbc_batch.engine.crew import choose_crew
from wbc_batch.exchange.importing import Foreign, import_checkpoint
from wbc_batch.schema import CLASSES
from wbc_batch.sources.pack import pack

TRY = 64  # files, to learn about how long a way takes
LEAST = 128

# What is chosen by itself comes first.
WITH = ["auto:auto", "openvino:fp32", "torch:bf16"]

RESNET = "our engine, ResNet18 at 224"
COMMAND = "command, start and report included"
SEED = "one at a time, ResNet18 at 224"
LOADER = "DataLoader, ResNet18 at 224"
TIMM = "timm's inference.py, ResNet18 at 224"
DECODING = "only decoding and preparing, folder"


@dataclass
class Way:
    """One row of the table.

    Attributes
    ----------
    run : callable
        Takes a number of cells; returns its seconds where the clock outside would be wrong.
    prepare : callable
        Called before each measurement.
    cells : int
        That it takes each round; 0 until it was tried.
    rates : list of float
        Cells per second, of each round.
    """

    run: Callable[[int], float | None]
    prepare: Callable[[], object] = lambda: None
    cells: int = 0
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Cells per second, the median."""
        return statistics.median(self.rates)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="images; drawn ones without it")
    parser.add_argument("--cells", type=int, default=10_000, help="files, made by links")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="for a way in a round, about")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--with", nargs="+", dest="ways", default=WITH, metavar="BACKEND:PRECISION")
    parser.add_argument("--timm", type=Path, help="inference.py of timm's repository")
    parser.add_argument("--dask-cells", type=int, default=20_000, help="0 leaves this part out")
    parser.add_argument("--scratch", type=Path, help="where files and results are written")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        originals, (height, width) = loads.of_one_size(loads.images(options.folder, scratch))
        print(
            f"{options.cells} files of {width} x {height} pixels, {len(originals)} different ones"
        )
        print_machine(options)
        sources = write(originals, options.cells, scratch)
        with all_ways(options, sources, scratch) as ways:
            measure(ways, options)
        print_table(ways)
        dask = None
        if options.dask_cells:
            tree = loads.linked_tree(originals, options.dask_cells, scratch / "dask")
            dask = engine.compare(tree, options.dask_cells, scratch)
        chosen = next(iter(ways)).split(", ")[1]
        print_targets(ways, chosen, dask)


def write(originals: list[Path], cells: int, scratch: Path) -> dict[str, Path]:
    """Give the same cells as each kind of source."""
    tree = loads.linked_tree(originals, cells, scratch / "slides")
    with zipfile.ZipFile(scratch / "cells.zip", "w") as archive:
        for file in sorted(tree.rglob("*.*")):
            archive.write(file, file.relative_to(tree))
    pack([tree], scratch / "cells.zarr", threads=cores())
    ours = read_bundle().preprocessing
    pack([tree], scratch / "prepared.zarr", preprocessing=ours, threads=cores())
    return {
        "folder": tree,
        "ZIP": scratch / "cells.zip",
        "zarr": scratch / "cells.zarr",
        "zarr --model": scratch / "prepared.zarr",
    }


@contextmanager
def all_ways(
    options: argparse.Namespace, sources: dict[str, Path], scratch: Path
) -> Iterator[dict[str, Way]]:
    """Start what the ways need, and stop it in the end."""
    weights = rivals.save_resnet18(scratch / "resnet18.pth")
    bundle = import_checkpoint(weights, Foreign("resnet18", CLASSES), scratch / "resnet18").path
    crew = choose_crew(options.device)
    spawn = get_context("spawn")
    with (
        crew.open(600) as client,
        ProcessPoolExecutor(1, mp_context=spawn) as seed,
        ProcessPoolExecutor(1, mp_context=spawn) as loader,
    ):
        ours = Ours(client, crew, "default", options.device, "auto", "auto", scratch)
        ways = our_ways(ours, options.ways, sources)
        resnet = replace(ours, model=str(bundle), backend="auto", precision="auto")
        ways[RESNET] = our_way(resnet, sources["folder"])
        ways[COMMAND] = Way(partial(command, options.device, scratch), cells=options.cells)
        files = sorted(sources["folder"].rglob("*.*"))
        ways[SEED] = in_process(seed, rivals.one_at_a_time, files)
        ways[LOADER] = in_process(loader, rivals.data_loader, files)
        if options.timm:
            ways[TIMM] = Way(Timm(options.timm, weights, files, scratch))
        yield ways


def our_ways(ours: Ours, backends: list[str], sources: dict[str, Path]) -> dict[str, Way]:
    ways, folder = {}, sources["folder"]
    for number, words in enumerate(backends):
        backend, _, precision = words.partition(":")
        chosen = replace(ours, backend=backend, precision=precision)
        name = chosen.warmed(folder)
        for kind, source in sources.items():
            ways[f"ours, {name}, {kind}"] = our_way(chosen, source)
        prepare = partial(chosen.warmed, folder)
        if not number:
            run = partial(chosen.alone, only_prepare, folder)
            ways[DECODING] = Way(run, prepare)
        run = partial(chosen.alone, only_predict, folder)
        ways[f"only the network, {name}"] = Way(run, prepare)
    return ways


def our_way(ours: Ours, source: Path) -> Way:
    return Way(partial(ours.classify, source), partial(ours.warmed, source))


def in_process(pool: ProcessPoolExecutor, function: Callable, files: list[Path]) -> Way:
    return Way(lambda cells: pool.submit(function, files[:cells]).result())


def command(device: str, scratch: Path, _: int) -> None:
    """Classify all cells by the command line, report and all."""
    words = ["classify", scratch / "slides", "-o", scratch / "run", "--device", device, "--force"]
    call = "from wbc_batch.cli import main; main()"
    subprocess.run([sys.executable, "-c", call, *words], check=True, capture_output=True)


class Timm:
    """Runs timm's script; what it takes for few files is its start, and taken off."""

    def __init__(self, script: Path, weights: Path, files: list[Path], scratch: Path) -> None:
        self._script, self._weights, self._files, self._scratch = script, weights, files, scratch

    def __call__(self, cells: int) -> float:
        """Return the seconds for some files, without the start."""
        start, taken = (self._taken(count) for count in (TRY, TRY + cells))
        return max(taken - start, 1e-3)

    def _taken(self, cells: int) -> float:
        tree = self._scratch / f"timm-{cells}"
        if not tree.exists():
            loads.linked_tree(self._files, cells, tree)
        return rivals.timm_script(self._script, tree, self._weights)


def measure(ways: dict[str, Way], options: argparse.Namespace) -> None:
    """Let all ways take turns, so that no one has the quieter machine."""
    for name, way in ways.items():
        if not way.cells:
            print(f"trying: {name}", file=sys.stderr, flush=True)
            way.prepare()
            seconds(way, TRY)
            rate = TRY / seconds(way, TRY)
            way.cells = int(min(max(rate * options.seconds, LEAST), options.cells))
    for number in range(options.rounds):
        for name, way in ways.items():
            way.prepare()
            way.rates.append(way.cells / seconds(way, way.cells))
            print(f"round {number + 1}: {name}: {way.rates[-1]:.1f}", file=sys.stderr, flush=True)


def seconds(way: Way, cells: int) -> float:
    began = time.perf_counter()
    told = way.run(cells)
    return time.perf_counter() - began if told is None else told


def print_machine(options: argparse.Namespace) -> None:
    print(
        f"{cores()} cores, {processor()}; Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"medians of {options.rounds} rounds, about {options.seconds:g} s each\n", flush=True)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def print_table(ways: dict[str, Way]) -> None:
    print(f"{'':40}{'images/s':>9}  {'from .. to':17}images a round")
    for name, way in ways.items():
        spread = f"{min(way.rates):.0f} .. {max(way.rates):.0f}"
        print(f"{name:40}{way.rate:9.0f}  {spread:17}{way.cells:14}")
    if TIMM not in ways:
        print(f"{TIMM:40}{'absent':>9}  (--timm)")


def print_targets(ways: dict[str, Way], chosen: str, dask: engine.Cost | None) -> None:
    """Print what the ways make of each other beside what is wanted; `chosen` is what ``auto`` chose."""
    rate = {name: way.rate for name, way in ways.items()}
    folder, zarr = rate[f"ours, {chosen}, folder"], rate[f"ours, {chosen}, zarr --model"]
    decoding, network = rate[DECODING], rate[f"only the network, {chosen}"]
    print()
    print_target("the seed's way, one image at a time", folder / rate[SEED], 20, "times")
    print_target("the DataLoader loop", folder / rate[LOADER], 10, "times")
    if TIMM in rate:
        print_target(
            "our engine's ResNet18 against timm's script", rate[RESNET] / rate[TIMM], 1.5, "times"
        )
    bound = 1 / (1 / decoding + 1 / network)
    print_target(
        f"of 1 / (1 / decoding + 1 / network) = {bound:.0f}", 100 * folder / bound, 80, "%"
    )
    print_target(
        "from a zarr packed for the model, of the network alone", 100 * zarr / network, 85, "%"
    )
    if dask:
        print_target("Dask's cost against the bare function", dask.percent, -5, "%")
        print_target("two workers against one", dask.two_workers, 1.8, "times")


def print_target(what: str, value: float, wanted: float, unit: str) -> None:
    """Print one line; a negative `wanted` is a most, not a least."""
    met = value <= -wanted if wanted < 0 else value >= wanted
    sign = "<=" if wanted < 0 else ">="
    told = f"wanted {sign} {abs(wanted):g} {unit}: {'met' if met else 'missed'}"
    print(f"{what:56}{value:8.2f} {unit:6}{told}")


if __name__ == "__main__":
    main()
