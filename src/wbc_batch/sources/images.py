"""From an encoded image to pixels, strictly: half a picture is an error, never a picture.

torchvision decodes JPEG and PNG: it releases the interpreter's lock and refuses truncated data,
where OpenCV returns half pictures. Pillow decodes the rest, tifffile TIFF of more than 8 bits.
"""

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ImageError
from wbc_batch.sources.cells import Cell

__all__ = ["MAX_PIXELS", "decode", "read_file", "read_image"]

#: Images with more pixels than this are refused before they are decoded (201 MB as 8-bit RGB).
MAX_PIXELS = 2**26

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BY_PILLOW = (("BMP", b"BM"), ("GIF", b"GIF87a"), ("GIF", b"GIF89a"), ("WEBP", b"RIFF"))

# SOF markers carry the size; C4, C8 and CC in the same range are tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_PALETTE, _PNG_GREY_ALPHA = 3, 4


def read_image(cell: Cell, base: Path | None = None) -> NDArray[np.uint8]:
    """Read the pixels of a listed cell.

    Grey, transparent and 16-bit images become 8-bit RGB by the classifier's own rule
    (`wbc_batch.classifier.images.as_rgb`). Orientation tags are ignored: a cell has no upside.

    Parameters
    ----------
    cell : Cell
    base : Path, optional
        The folder that a relative `cell.source` starts from. Default: the current one.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.

    Raises
    ------
    ImageError
        Saying why the file is not an image of a cell. The message does not repeat the file's name.
    """
    from wbc_batch.classifier.images import as_rgb

    path = Path(cell.source, cell.member)
    return as_rgb(decode(read_file(path if base is None else base / path)))


def read_file(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    ImageError
        Saying why it cannot be read. The message does not repeat the file's name.
    """
    try:
        # A pipe or a device would block for ever, so ask before opening.
        if not S_ISREG(path.stat().st_mode):
            raise ImageError("this is not a regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        linked = path.is_symlink()
        raise ImageError(
            "the file is a link to a file that is not there" if linked else "the file is gone"
        ) from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ImageError(f"the file cannot be opened ({reason})") from error


def decode(data: bytes) -> NDArray:
    """Decode one JPEG, PNG, BMP, TIFF, WebP or GIF image, told by its first bytes.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    ndarray
        ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``; uint8 or uint16, or what else a TIFF holds.

    Raises
    ------
    ImageError
        If the data are empty, of no known format, truncated, damaged, too large, or hold more than
        one image.
    """
    if not data:
        raise ImageError("the file is empty")
    name, decoder = _decoder(data)
    try:
        return decoder(data)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything, and all of it means this
        raise ImageError(f"the {name} data are truncated or damaged") from error


def _decoder(data: bytes) -> tuple[str, Callable[[bytes], NDArray]]:
    if data.startswith(_JPEG):
        return "JPEG", _decode_jpeg
    if data.startswith(_PNG):
        return "PNG", _decode_png
    if data.startswith(_TIFF):
        return "TIFF", _decode_tiff
    for name, signature in _BY_PILLOW:
        if data.startswith(signature):
            return name, partial(_decode_with_pillow, name=name)
    raise ImageError("this is not a JPEG, PNG, BMP, TIFF, WebP or GIF image")


def _decode_jpeg(data: bytes) -> NDArray:
    _refuse_large(*_jpeg_size(data))
    return _decode_with_torchvision(data, "JPEG", "RGB")  # four channels would be CMYK


def _decode_png(data: bytes) -> NDArray:
    # IHDR is always the first chunk: length and name (8 bytes), then width, height, depth, colour.
    width, height, _, colour = struct.unpack_from(">IIBB", data, len(_PNG) + 8)
    _refuse_large(width, height)
    if colour in (_PNG_PALETTE, _PNG_GREY_ALPHA):
        return _decode_with_pillow(data, name="PNG")
    return _decode_with_torchvision(data, "PNG", "UNCHANGED")


def _decode_with_torchvision(data: bytes, name: str, mode: str) -> NDArray:
    import torch

    try:
        from torchvision.io import ImageReadMode, decode_image
    except ImportError:  # 0.29 announces that a later version will drop it; Pillow is slower
        return _decode_with_pillow(data, name)
    encoded = torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8))
    return decode_image(encoded, mode=ImageReadMode[mode]).permute(1, 2, 0).numpy()


def _decode_with_pillow(data: bytes, name: str) -> NDArray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=[name]) as image:
        _refuse_large(*image.size)
        _refuse_many(getattr(image, "n_frames", 1), "frames")
        if image.mode.startswith("I;16"):
            return np.asarray(image)[..., np.newaxis]
        transparent = image.has_transparency_data
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _decode_tiff(data: bytes) -> NDArray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        _refuse_many(len(tiff.pages), "pages")
        page = tiff.pages.first
        _refuse_large(page.imagewidth, page.imagelength)
        if page.bitspersample <= 8:  # Pillow knows the compressions, palettes and colour spaces
            return _decode_with_pillow(data, name="TIFF")
        pixels = _tiff_pixels(page)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = np.iinfo(pixels.dtype).max - pixels
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _tiff_pixels(page: Any) -> NDArray:
    try:
        return page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise ImageError(
            f"{page.bitspersample}-bit TIFF with {page.compression.name} compression cannot be "
            "read; save it without compression or with Deflate"
        ) from error


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the frame header, which precedes every scan (ITU-T T.81, B.2.2)."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length  # 0xFF: a fill byte before the marker


def _refuse_large(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"an image of {width} x {height} pixels is too large for a crop of one cell "
            f"(at most {MAX_PIXELS // 1_000_000} million pixels are accepted)"
        )


def _refuse_many(count: int, what: str) -> None:
    if count > 1:
        raise ImageError(f"the file holds {count} {what}; one image per file is accepted")
