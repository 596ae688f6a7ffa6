"""What importing costs: nothing heavy before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

HEAVY = ("torch", "dask", "distributed", "pandas", "numpy", "rich", "napari")


@pytest.mark.parametrize(
    "code",
    [
        "import wbc_batch",
        "import sys; sys.argv = ['wbc-batch', '--help']; import wbc_batch.cli as c; c.main()",
        "import sys; sys.argv = ['wbc-batch', '--version']; import wbc_batch.cli as c; c.main()",
    ],
    ids=["package", "help", "version"],
)
def test_heavy_packages_are_not_imported(code: str) -> None:
    report = f"import sys, atexit; atexit.register(lambda: print('LOADED', *sys.modules)); {code}"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    loaded = run.stdout.rsplit("LOADED", 1)[1].split()
    assert not set(HEAVY) & set(loaded)


def test_pictures_are_decoded_without_all_of_torchvision(tmp_path: Path) -> None:
    """It takes longer to import than all else that a worker needs."""
    Image.new("RGB", (30, 30)).save(tmp_path / "1.png")
    code = (
        "import sys; from pathlib import Path; from wbc_batch.sources import decode;"
        "decode(Path(sys.argv[1]).read_bytes()); print('torch' in sys.modules, *sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "1.png")]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    used, *loaded = run.stdout.split()
    assert used == "True"  # it was not Pillow
    assert "torchvision" not in loaded


def test_public_names_exist() -> None:
    import wbc_batch

    for name in wbc_batch.__all__:
        assert getattr(wbc_batch, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = wbc_batch.no_such_name
