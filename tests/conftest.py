"""What several test modules share."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from report_runs import write_blanks
from runs import TRAPS, draw

from wbc_batch.classifier import read_bundle
from wbc_batch.engine.plan import Job, model_digest
from wbc_batch.errors import ExitCode
from wbc_batch.run import classify_paths
from wbc_batch.schema import SHARDS

# Without an X server Qt does not raise, it ends the process.
HAS_DISPLAY = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or shutil.which("Xvfb"))

REPOSITORY = Path(__file__).parents[1]

# These import napari.
collect_ignore_glob = [] if find_spec("napari") else ["test_napari_*.py"]


def pytest_report_header() -> list[str]:
    return ["napari is not installed: its tests are left out"] if collect_ignore_glob else []


@pytest.fixture(scope="session")
def real_cells() -> Path:
    """Folder of labelled real cells; see docs/development.md for its layout."""
    folder = Path(os.environ.get("WBC_REAL_CELLS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "pbc" / "val").is_dir():
        pytest.skip(f"no real cells in {folder}; set WBC_REAL_CELLS to their folder")
    return folder


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of 40 drawn cells."""
    folder = tmp_path_factory.mktemp("input") / "slides"
    for number in range(120):
        draw(folder / f"slide-{number % 3}" / f"{number:03d}.png", number)
    return folder


@pytest.fixture(scope="session")
def undisturbed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run over `slides`, on one worker."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    summary = classify_paths([slides], run_dir, device="cpu", workers=1)
    assert summary.exit_code == ExitCode.OK
    return run_dir


@pytest.fixture
def blank_drawings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawings of reports out, which take seconds, but for tests that ask for `real_drawings`."""
    if "real_drawings" not in request.fixturenames:
        monkeypatch.setattr("wbc_batch.report.drawings.write_drawings", write_blanks)


@pytest.fixture
def real_drawings() -> None:
    """Have the drawings made."""


@pytest.fixture
def own_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the journals of reviews out of the user's folder."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "journals")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / SHARDS).mkdir()
    digest = model_digest(read_bundle())
    return Job("default", digest, "cpu", "fp32", 2, str(tmp_path), str(tmp_path / SHARDS))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing by threads, and lose much where the machine is busy."""
    import torch  # takes seconds, which most tests need not wait for

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def traps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Dask's setting, as text, that makes workers load `TRAPS`."""
    path = tmp_path_factory.mktemp("preload") / "traps.py"
    path.write_text(TRAPS)
    return json.dumps([str(path)])


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes minutes unless asked for; mark what uses Qt, and skip it where there is no X server."""
    # Its fixtures all bring `qapp`.
    windows = [item for item in items if "qapp" in getattr(item, "fixturenames", ())]
    if windows:
        # It brings an LLVM, which must come before that of Mesa: see wbc_napari.torchvision_loader.
        import torchvision  # noqa: F401
    skip = pytest.mark.skip(reason="no X server; tests/debian-packages.sh names what to install")
    for item in windows:
        item.add_marker("window")
        if not HAS_DISPLAY:
            item.add_marker(skip)
    if "chaos" not in config.option.markexpr:
        long = pytest.mark.skip(reason="takes minutes; ask for it with -m chaos")
        for item in items:
            if item.get_closest_marker("chaos"):
                item.add_marker(long)
