"""What napari is told of the plugin."""

import subprocess
import sys
from pathlib import Path

import npe2

ROOT = Path(__file__).parents[1]


def test_the_installed_plugin_is_found_and_its_manifest_valid():
    manifest = npe2.PluginManifest.from_distribution("wbc-napari")
    manifest.validate_imports()
    assert manifest == npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    npe2.PluginManager.instance().discover()
    assert "wbc-napari" in npe2.PluginManager.instance()


def test_npe2_itself_calls_it_valid():
    command = [sys.executable, "-m", "npe2", "validate", "wbc-napari"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout + done.stderr


def test_every_menu_is_one_that_napari_shows():
    from napari._app_model.constants import MenuId

    manifest = npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    assert set(manifest.contributions.menus) <= {str(menu) for menu in MenuId.contributables()}


def test_napari_starts_without_torch():
    modules = "wbc_napari.station, wbc_napari.adapt_widget, wbc_napari.readers"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_that_are_not_ours_open_without_a_question():
    manager = npe2.PluginManager.instance()
    manager.discover()
    for name in ("a.png", "a.tif", "a.npy"):
        readers = list(manager.iter_compatible_readers([name]))
        assert "wbc-napari" not in {reader.plugin_name for reader in readers}
