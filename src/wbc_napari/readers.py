"""File > Open: batch runs and their tables; zarr stores of crops. File > Save: corrections."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wbc_napari.marks import MARK, LayerData

__all__ = ["read_crops", "read_run", "write_corrections"]

_COLOURS = (3, 4)

Reader = Callable[[Any], list[LayerData]]


def read_run(path: str | list[str]) -> Reader | None:
    """Offer to read a run directory or a ``cells.csv``; None for anything else."""
    from wbc_napari.batch_run import is_run, lost_crops, open_run, run_layers
    from wbc_napari.notices import show_warning

    if isinstance(path, list) or not is_run(Path(path)):
        return None

    def read(_path: Any) -> list[LayerData]:
        run = open_run(Path(path))
        if why := lost_crops(run):
            show_warning(why)
        return run_layers(run)

    return read


def read_crops(path: str | list[str]) -> Reader | None:
    """Offer to read zarr lazily: crops, a field (Y, X, 3) or (3, Y, X), a packed store.

    Crops are (N, Y, X, 3), (N, 3, Y, X) or (N, Y, X).
    """
    if isinstance(path, list) or not Path(path).is_dir():
        return None
    if _is_packed(Path(path)):
        from wbc_napari.batch_run import packed_layer

        return lambda _path: [packed_layer(Path(path))]
    array = _crops(Path(path))
    if array is None:
        return None
    name = Path(path).name.removesuffix(".zarr")
    attributes = {"name": name, "rgb": array.shape[-1] in _COLOURS}
    one_picture = array.ndim == 3 and (attributes["rgb"] or array.shape[0] in _COLOURS)
    if not one_picture:
        colours = ("c",) if array.ndim == 4 and not attributes["rgb"] else ()
        attributes["axis_labels"] = ("cell", *colours, "y", "x")
    return lambda _path: [(array, attributes, "image")]


def _is_packed(path: Path) -> bool:
    """Whether a store was written by ``wbc-batch pack``: its crops have sizes and names of their own."""
    import zarr

    from wbc_batch.sources.packed import MARK as PACKED

    try:
        return PACKED in zarr.open(str(path), mode="r").attrs
    except Exception:  # noqa: BLE001 - as below
        return False


def _crops(path: Path) -> Any:
    """Return the array of a store: itself, or the one named ``crops`` or ``images`` in a group."""
    import zarr

    try:
        node = zarr.open(str(path), mode="r")
        if not hasattr(node, "shape"):
            names = [name for name in ("crops", "images") if name in node]
            node = node[names[0]] if names else None
    except Exception:  # noqa: BLE001 - whatever is wrong with it, another reader may know it
        return None
    if node is None:
        return None
    coloured = node.ndim == 4 and (node.shape[-1] in _COLOURS or node.shape[1] in _COLOURS)
    return node if coloured or node.ndim == 3 else None


def write_corrections(path: str, _data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write the reviewed cells of a Points or Shapes layer as a corrections file."""
    from wbc_batch.errors import WbcError
    from wbc_napari.export import save_corrections
    from wbc_napari.notices import show_error

    features = attributes.get("features")
    if MARK not in attributes.get("metadata", {}) or features is None:
        show_error("This layer holds no cells that were reviewed here; nothing was written.")
        return []
    try:
        save_corrections(features, Path(path))
    except WbcError as error:
        show_error(str(error))
        return []
    return [path]
