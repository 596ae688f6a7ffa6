"""The plugin reaches napari from a wheel and from an sdist as it does from a checkout."""

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("build") is None:
    pytest.skip("build and hatchling are not installed", allow_module_level=True)

ROOT = Path(__file__).parents[1]
MANIFEST = (ROOT / "napari.yaml").read_bytes()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Build both archives from the checkout; return the paths of wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist"]
    done = subprocess.run(
        [*command, "--outdir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_the_wheel_holds_the_manifest_once_and_unchanged(archives):
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        named = [name for name in wheel.namelist() if name.endswith("napari.yaml")]
        assert named == ["wbc_napari/napari.yaml"]
        assert wheel.read(named[0]) == MANIFEST
        assert "wbc_batch/models/default/model.safetensors" in wheel.namelist()


def test_the_sdist_holds_the_manifest_once_and_unchanged(archives):
    with tarfile.open(archives["sdist"]) as sdist:
        named = [name for name in sdist.getnames() if name.endswith("napari.yaml")]
        assert [Path(name).parts[1:] for name in named] == [("napari.yaml",)]
        assert sdist.extractfile(named[0]).read() == MANIFEST


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_npe2_finds_the_plugin_where_it_is_installed(kind, archives, tmp_path):
    if importlib.util.find_spec("npe2") is None:
        pytest.skip("npe2 is not installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(tmp_path / "site"), str(archives[kind])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The folder goes first on the path, before a checkout that is installed as well.
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import npe2, wbc_napari
manager = npe2.PluginManager.instance()
manager.discover()
manager.get_manifest("wbc-napari").validate_imports()
print(wbc_napari.__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(tmp_path)
