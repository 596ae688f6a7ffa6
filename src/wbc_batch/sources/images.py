"""From an encoded image to pixels, strictly: half a picture is an error, never a picture.

torchvision decodes JPEG and PNG: it releases the interpreter's lock and refuses truncated data,
where OpenCV returns half pictures. Pillow decodes the rest; tifffile TIFF of more than 8 bits, and what
Pillow lacks the codec for.
"""

import io
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wbc_batch.errors import ContainerError, ImageError
from wbc_batch.paths import refuse_passing
from wbc_batch.sources.kinds import TIFF, container_in
from wbc_batch.sources.size_limits import refuse_large, refuse_page
from wbc_batch.sources.torchvision_decoder import RGB, UNCHANGED, torchvision_decoder

__all__ = [
    "ENOUGH",
    "crop_size",
    "decode",
    "decode_crop",
    "page_colours",
    "page_pixels",
]

#: The picture of one cell keeps at least this many pixels on its shorter side, where it is made smaller.
#: The network sees the cell in 160, and it fills a third of a picture of PBC.
ENOUGH = 512

_Found = TypeVar("_Found")

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_BY_PILLOW = (("BMP", b"BM"), ("GIF", b"GIF87a"), ("GIF", b"GIF89a"), ("WEBP", b"RIFF"))

# SOF markers carry the size; C4, C8 and CC in the same range are tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_GREY, _PNG_RGB, _PNG_PALETTE, _PNG_GREY_ALPHA = 0, 2, 3, 4
_PNG_SAMPLES = {_PNG_GREY: 1, _PNG_RGB: 3, _PNG_PALETTE: 1, _PNG_GREY_ALPHA: 2}  # else 4
# Pillow has a name for it, but its wheels come without the codec.
_TIFF_WEBP = 50001


# By orientation tag (TIFF 6.0, section 8).
_TURNED_BACK: dict[int, Callable[[NDArray], NDArray]] = {
    2: np.fliplr,
    3: partial(np.rot90, k=2),
    4: np.flipud,
    5: partial(np.transpose, axes=(1, 0, 2)),
    6: np.rot90,
    7: lambda pixels: np.rot90(np.transpose(pixels, (1, 0, 2)), k=2),
    8: partial(np.rot90, k=-1),
}


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
    return _strictly(name, decoder, data)


def decode_crop(data: bytes) -> NDArray:
    """Decode the image of one cell as `decode` does, but large JPEG files at 1/2, 1/4 or 1/8 of their size.

    The smallest of these that leaves `ENOUGH` pixels on the shorter side is taken. It hangs on the image
    alone, not on the model: so a cell has the same pixels wherever it lies. libjpeg computes only these,
    which takes a third to a half of the time.

    Raises
    ------
    ImageError
        As `decode` does.
    """
    if not data.startswith(_JPEG):
        return decode(data)
    return _strictly("JPEG", _decode_jpeg_crop, data)


def _strictly(name: str, decoder: Callable[[bytes], _Found], data: bytes) -> _Found:
    try:
        return decoder(data)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything, and all of it means this, but where
        refuse_passing("a library", error)  # one cannot be loaded
        raise ImageError(f"the {name} data are truncated or damaged") from error


def crop_size(data: bytes) -> tuple[int, int]:
    """Tell height and width of what `decode_crop` gives, decoding only where the header does not tell.

    Raises
    ------
    ImageError
        If it cannot be decoded then.
    """
    from PIL import Image

    if data.startswith(TIFF):
        return _strictly("TIFF", _tiff_size, data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - what Pillow cannot tell, decoding does, or why not
        height, width = decode(data).shape[:2]
    if data.startswith(_PNG):
        _refuse_large_png(data)
    refuse_large(width, height)
    step = _reduction(*_jpeg_frame(data)) if data.startswith(_JPEG) else 1
    return -(-height // step), -(-width // step)


def _decoder(data: bytes) -> tuple[str, Callable[[bytes], NDArray]]:
    if data.startswith(_JPEG):
        return "JPEG", _decode_jpeg
    if data.startswith(_PNG):
        return "PNG", _decode_png
    if data.startswith(TIFF):
        return "TIFF", _decode_tiff
    for name, signature in _BY_PILLOW:
        if data.startswith(signature):
            return name, partial(_decode_with_pillow, name=name)
    if container := container_in(data):
        raise ContainerError(container)
    raise ImageError("this is not a JPEG, PNG, BMP, TIFF, WebP or GIF image")


def _decode_jpeg(data: bytes) -> NDArray:
    width, height, _ = _jpeg_frame(data)
    refuse_large(width, height)
    return _decode_with_torchvision(data, "JPEG", RGB)  # four channels would be CMYK


def _decode_jpeg_crop(data: bytes) -> NDArray:
    width, height, components = _jpeg_frame(data)
    if _reduction(width, height, components) == 1:
        return _decode_jpeg(data)
    refuse_large(width, height)
    return _decode_with_pillow(data, "JPEG", least=ENOUGH)


def _reduction(width: int, height: int, components: int) -> int:
    """Choose the scale at which a JPEG is decoded, 1/1 to 1/8: as Pillow's ``draft`` does."""
    if components not in (1, 3):  # CMYK, which Pillow turns into other colours than torchvision
        return 1
    room = min(width, height) // ENOUGH
    return next((step for step in (8, 4, 2) if room >= step), 1)


def _decode_png(data: bytes) -> NDArray:
    depth, colour = _refuse_large_png(data)
    chunks = dict(_png_chunks(data))
    if b"acTL" in chunks:  # an animation, and how many images it holds (PNG 3, section 11.3.6.1)
        _refuse_frames(struct.unpack_from(">I", data, chunks[b"acTL"])[0])
    if colour in (_PNG_PALETTE, _PNG_GREY_ALPHA):
        return _decode_with_pillow(data, name="PNG")
    pixels = _decode_with_torchvision(data, "PNG", UNCHANGED)
    if b"tRNS" in chunks and colour in (_PNG_GREY, _PNG_RGB) and pixels.shape[-1] < 4:
        clear = np.frombuffer(data, ">u2", 3 if colour == _PNG_RGB else 1, chunks[b"tRNS"])
        return _cleared(pixels, clear * (255 // (2**depth - 1)) if depth < 8 else clear)
    return pixels


def _refuse_large_png(data: bytes) -> tuple[int, int]:
    """Look at the header of a PNG; bits of a sample, and colour type."""
    # IHDR is always the first chunk: length and name (8 bytes), then width, height, depth, colour.
    width, height, depth, colour = struct.unpack_from(">IIBB", data, len(_PNG) + 8)
    refuse_large(width, height, _PNG_SAMPLES.get(colour, 4) * depth / 8)
    return depth, colour


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Names of the chunks of a PNG before its first IDAT, and where their contents begin."""
    at, name = len(_PNG), b""
    while name != b"IDAT":
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8
        at += length + 12  # with its length, name and checksum


def _cleared(pixels: NDArray, clear: NDArray) -> NDArray:
    """Give pixels an opacity: none where they have the one colour that is transparent."""
    opaque = (pixels != clear).any(axis=-1, keepdims=True) * np.iinfo(pixels.dtype).max
    colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.concatenate([colours, opaque.astype(pixels.dtype)], axis=-1)


def _refuse_frames(frames: int) -> None:
    if frames > 1:
        raise ImageError(f"the file holds {frames} frames; only one image per file is accepted")


def _decode_with_torchvision(data: bytes, name: str, mode: int) -> NDArray:
    try:
        import torch

        decode_image = torchvision_decoder()
    except ImportError:  # 0.29 announces that a later version will drop it; Pillow is slower
        return _decode_with_pillow(data, name)
    encoded = torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8))
    return decode_image(encoded, mode).permute(1, 2, 0).numpy()


def _decode_with_pillow(data: bytes, name: str, least: int | None = None) -> NDArray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=[name]) as image:
        refuse_large(*image.size)
        if least:
            image.draft(None, (least, least))
        # Cameras put small copies behind a JPEG, which are no frames of it.
        _refuse_frames(1 if name == "JPEG" else getattr(image, "n_frames", 1))
        if image.mode.startswith("I;16"):
            return np.asarray(image)[..., np.newaxis]
        transparent = image.has_transparency_data
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _decode_tiff(data: bytes) -> NDArray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) > 1:
            pixels = _only_crop(data).read(0)
        else:
            page = tiff.pages.first
            refuse_page(page)
            if page.bitspersample <= 8 and _pillow_knows(page.compression):
                return _decode_tiff_with_pillow(data)
            pixels = page_colours(page, page_pixels(page))
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _pillow_knows(compression: int) -> bool:
    """Tell whether Pillow decodes it; if so it knows more palettes and colour spaces than tifffile."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    return compression in COMPRESSION_INFO and compression != _TIFF_WEBP


def _decode_tiff_with_pillow(data: bytes) -> NDArray:
    """Decode with Pillow, but as the pixels lie in the file: it turns them as the orientation tag says."""
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    turned = _decode_with_pillow(data, name="TIFF")
    return np.ascontiguousarray(_TURNED_BACK.get(orientation, np.asarray)(turned))


def _tiff_size(data: bytes) -> tuple[int, int]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) > 1:
            return _only_crop(data).size(0)
        page = tiff.pages.first
        refuse_page(page)
        return page.imagelength, page.imagewidth


def _only_crop(data: bytes) -> Any:
    """Open a TIFF file of several pages that are one crop: its colours, or smaller copies of it.

    Raises
    ------
    ImageError
        If they are several.
    """
    from wbc_batch.sources.stacks import TiffStack

    stack = TiffStack(io.BytesIO(data))
    if stack.broken:
        raise ImageError("the TIFF data are truncated or damaged")
    if len(stack) != 1:
        raise ContainerError(
            f"the file holds {stack.pages} pages; give it as a separate input, so that each page "
            "is one cell"
        )
    return stack


def page_pixels(page: Any, lock: Any = None) -> NDArray:
    """Decode a page of a TIFF file.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
    lock : threading.RLock, optional
        Held while the file is read.

    Returns
    -------
    ndarray
        As the page holds them; see `page_colours`.

    Raises
    ------
    ImageError
        If that takes a codec that is not installed.
    """
    try:
        return page.asarray(lock=lock, maxworkers=1)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        keyframe = page.keyframe
        raise ImageError(
            f"{keyframe.bitspersample}-bit TIFF with {keyframe.compression.name} compression cannot "
            "be read; save it without compression or with Deflate"
        ) from error


def page_colours(page: Any, pixels: NDArray) -> NDArray:
    """Turn the pixels of a TIFF page into grey or RGB, as its tags say.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
    pixels : ndarray
        Of `page`, or of another one that has the same tags.

    Returns
    -------
    ndarray, shape (H, W) or (H, W, C)

    Raises
    ------
    ImageError
        If the colour space is another one.
    """
    keyframe = page.keyframe
    photometric = getattr(keyframe.photometric, "name", str(keyframe.photometric))
    if keyframe.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    if photometric == "MINISWHITE":
        return np.iinfo(pixels.dtype).max - pixels
    if photometric == "PALETTE":
        return (keyframe.colormap[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
    as_rgb = photometric == "YCBCR" and "JPEG" in keyframe.compression.name  # the codec did it
    if photometric in ("MINISBLACK", "RGB") or as_rgb:
        return pixels
    raise ImageError(f"TIFF with {photometric} colors cannot be read; save it as RGB")


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Width, height and components from the frame header, which precedes every scan (ITU-T T.81, B.2.2)."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker in _JPEG_FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            return width, height, components
        at += 1 if marker == 0xFF else 2 + length  # 0xFF: a fill byte before the marker
