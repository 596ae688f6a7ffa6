"""What several test modules share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_cells() -> Path:
    """Folder of labelled real cells; see docs/development.md for its layout."""
    folder = Path(os.environ.get("WBC_REAL_CELLS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "pbc" / "val").is_dir():
        pytest.skip(f"no real cells in {folder}; set WBC_REAL_CELLS to their folder")
    return folder
