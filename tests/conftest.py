"""What several test modules share."""

import os
import shutil
import sys
from pathlib import Path

import pytest

# Without an X server Qt does not raise, it ends the process.
WINDOWS = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or shutil.which("Xvfb"))

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_cells() -> Path:
    """Folder of labelled real cells; see docs/development.md for its layout."""
    folder = Path(os.environ.get("WBC_REAL_CELLS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "pbc" / "val").is_dir():
        pytest.skip(f"no real cells in {folder}; set WBC_REAL_CELLS to their folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what opens a window where there is no X server."""
    skip = pytest.mark.skip(reason="no X server; tests/debian-packages.sh names what to install")
    for item in items:
        if not WINDOWS and "make_napari_viewer" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)
