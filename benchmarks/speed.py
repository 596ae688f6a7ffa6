"""How fast cells are classified, and against what: python benchmarks/speed.py [FOLDER] [--timm inference.py].

On the same files and cores, in turn, round after round: this package with some backends and precisions from
a folder, a ZIP archive and packed zarr stores, without and with canonical crops, its bounds (only decoding
and preparing; only the network), and the ways of `rivals.py`. The files are those of FOLDER that have the
most frequent size, or drawn cells, linked many times. Prints medians of images per second with their range.
Workers and networks are warm, and a way takes as many files as it does in some seconds; the row "command" is
all that a user waits for, with start and report. With --ours only our own ways on warm workers are measured.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import engine
import inputs
import rivals
import torch
from ways import Ours, only_predict, only_prepare

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.devices import choose_device
from wbc_batch.engine.crew import choose_crew
from wbc_batch.engine.machine import cores
from wbc_batch.exchange.importing import Foreign, import_checkpoint
from wbc_batch.schema import CLASSES
from wbc_batch.sources.pack import pack

TRY = 64  # files at least, to learn about how long a way takes
MORE = 4  # times as many, where these took too short to tell
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
    parser.add_argument(
        "--ours", action="store_true", help="only ways and bounds of ours, on warm workers"
    )
    parser.add_argument("--timm", type=Path, help="inference.py of timm's repository")
    parser.add_argument("--dask-cells", type=int, default=20_000, help="0 leaves this part out")
    parser.add_argument("--scratch", type=Path, help="where files and results are written")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        originals, (height, width) = inputs.of_one_size(inputs.images(options.folder, scratch))
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
            tree = inputs.linked_tree(originals, options.dask_cells, scratch / "dask")
            dask = engine.compare(tree, options.dask_cells, scratch)
        chosen = next(iter(ways)).split(", ")[1]
        print()
        if not options.ours:
            print_rivals(ways, chosen)
        print_bounds(ways, chosen, options.device)
        if dask:
            print_target("Dask's cost against the bare function", dask.percent, -5, "%")
            print_target("two workers against one", dask.two_workers, 1.8, "times")


def write(originals: list[Path], cells: int, scratch: Path) -> dict[str, Path]:
    """Give the same cells as each kind of source."""
    tree = inputs.linked_tree(originals, cells, scratch / "slides")
    with zipfile.ZipFile(scratch / "cells.zip", "w") as archive:
        for file in sorted(tree.rglob("*.*")):
            archive.write(file, file.relative_to(tree))
    pack([tree], scratch / "cells.zarr", cores=cores())
    ours = read_bundle().preprocessing
    pack([tree], scratch / "prepared.zarr", preprocessing=ours, cores=cores())
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
    crew = choose_crew(options.device)
    with crew.open(600) as client, ExitStack() as stack:
        ours = Ours(client, crew, "default", options.device, "auto", "auto", scratch)
        ways = our_ways(ours, options.ways, sources)
        if not options.ours:
            ways |= other_ways(ours, options, sources["folder"], stack)
        yield ways


def other_ways(
    ours: Ours, options: argparse.Namespace, folder: Path, stack: ExitStack
) -> dict[str, Way]:
    """Add what others do, and what their network costs in our engine; the stack ends their processes."""
    weights = rivals.save_resnet18(ours.scratch / "resnet18.pth")
    resnet18 = Foreign("resnet18", CLASSES)
    bundle = import_checkpoint(weights, resnet18, ours.scratch / "resnet18").path
    spawn = get_context("spawn")
    seed, loader = (stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for _ in range(2))
    files = sorted(folder.rglob("*.*"))
    ways = {
        RESNET: our_way(replace(ours, model=str(bundle)), folder),
        COMMAND: Way(partial(command, options.device, ours.scratch), cells=options.cells),
        SEED: in_process(seed, rivals.one_at_a_time, files),
        LOADER: in_process(loader, rivals.data_loader, files),
    }
    if options.timm:
        ways[TIMM] = Way(Timm(options.timm, weights, files, ours.scratch))
    return ways


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
    words = ["classify", str(scratch / "slides"), "-o", str(scratch / "run")]
    words += ["--device", device, "--force"]
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
            inputs.linked_tree(self._files, cells, tree)
        return rivals.timm_script(self._script, tree, self._weights)


def measure(ways: dict[str, Way], options: argparse.Namespace) -> None:
    """Let all ways take turns, so that no one has the quieter machine."""
    on_gpu = choose_device(options.device).type == "cuda"
    for name, way in ways.items():
        if on_gpu:  # shows its rate on thousands only
            way.cells = options.cells
        if not way.cells:
            print(f"trying: {name}", file=sys.stderr, flush=True)
            way.prepare()
            seconds(way, TRY)
            way.cells = enough(way, options)
    for number in range(options.rounds):
        for name, way in ways.items():
            way.prepare()
            way.rates.append(way.cells / seconds(way, way.cells))
            print(f"round {number + 1}: {name}: {way.rates[-1]:.1f}", file=sys.stderr, flush=True)


def enough(way: Way, options: argparse.Namespace) -> int:
    """How many cells a way does in the seconds of a round."""
    cells = TRY
    while (taken := seconds(way, cells)) < options.seconds / MORE and cells < options.cells:
        cells = min(MORE * cells, options.cells)
    return int(min(max(cells / taken * options.seconds, LEAST), options.cells))


def seconds(way: Way, cells: int) -> float:
    began = time.perf_counter()
    told = way.run(cells)
    return time.perf_counter() - began if told is None else told


def print_machine(options: argparse.Namespace) -> None:
    print(
        f"{cores()} cores, {processor()}; Python {platform.python_version()}, torch {torch.__version__}"
    )
    if choose_device(options.device).type == "cuda":
        print(torch.cuda.get_device_name(options.device))
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
    if SEED in ways and TIMM not in ways:
        print(f"{TIMM:40}{'absent':>9}  (--timm)")


def print_rivals(ways: dict[str, Way], chosen: str) -> None:
    """Print how we stand to others beside what is wanted; `chosen` is what ``auto`` chose."""
    rate = {name: way.rate for name, way in ways.items()}
    folder = rate[f"ours, {chosen}, folder"]
    print_target("the seed's way, one image at a time", folder / rate[SEED], 20, "times")
    print_target("the DataLoader loop", folder / rate[LOADER], 10, "times")
    if TIMM in rate:
        print_target(
            "our engine's ResNet18 against timm's script", rate[RESNET] / rate[TIMM], 1.5, "times"
        )


def print_bounds(ways: dict[str, Way], chosen: str, device: str) -> None:
    """Print what is left of the bounds beside what is wanted.

    Decoding and the network share the cores of a CPU; beside a GPU, decoding has them to itself.
    """
    rate = {name: way.rate for name, way in ways.items()}
    folder, zarr = rate[f"ours, {chosen}, folder"], rate[f"ours, {chosen}, zarr --model"]
    decoding, network = rate[DECODING], rate[f"only the network, {chosen}"]
    if choose_device(device).type == "cpu":
        bound, wanted = 1 / (1 / decoding + 1 / network), 80
        name = f"of 1 / (1 / decoding + 1 / network) = {bound:.0f}"
    else:
        bound, wanted = min(decoding, network), 70
        name = f"of the slower of decoding and the network = {bound:.0f}"
    print_target(name, 100 * folder / bound, wanted, "%")
    print_target(
        "from a zarr packed for the model, of the network alone", 100 * zarr / network, 85, "%"
    )


def print_target(what: str, value: float, wanted: float, unit: str) -> None:
    """Print one line; a negative `wanted` is a most, not a least."""
    met = value <= -wanted if wanted < 0 else value >= wanted
    sign = "<=" if wanted < 0 else ">="
    told = f"wanted {sign} {abs(wanted):g} {unit}: {'met' if met else 'missed'}"
    print(f"{what:56}{value:8.2f} {unit:6}{told}")


if __name__ == "__main__":
    main()
