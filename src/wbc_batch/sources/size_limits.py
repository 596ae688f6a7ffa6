"""How large an image may be: asked of its header, or of an array's shape, before anything is decoded."""

from typing import Any

from wbc_batch.errors import ImageError

__all__ = ["MAX_PIXELS", "refuse_large", "refuse_page"]

#: Images with more pixels than this are refused before they are decoded, and those that take more memory
#: than this many pixels of 8-bit RGBA (268 MB), such as half as many of 16 bits.
MAX_PIXELS = 2**26
_RGBA_BYTES = 4


def refuse_page(page: Any, planes: int = 1) -> None:
    """Refuse a page of a TIFF file, before it is decoded, that is too large or no picture.

    Parameters
    ----------
    page : tifffile.TiffPage
    planes : int
        How many such pages are the colours of the image.

    Raises
    ------
    ImageError
    """
    samples = page.samplesperpixel
    if samples > _RGBA_BYTES:
        raise ImageError(
            f"a TIFF with {samples} samples per pixel cannot be read as an image; save it as "
            "grayscale or RGB"
        )
    held = samples * page.imagedepth * -(-page.bitspersample // 8)
    refuse_large(page.imagewidth, page.imagelength, planes * held)


def refuse_large(width: int, height: int, pixel_bytes: float = _RGBA_BYTES) -> None:
    """Refuse an image that is larger than `MAX_PIXELS` says, before it is decoded.

    Parameters
    ----------
    width, height : int
        Pixels.
    pixel_bytes : float
        What a pixel takes. Less than four count as four: all become RGB, and may get an opacity.

    Raises
    ------
    ImageError
    """
    most = int(MAX_PIXELS * _RGBA_BYTES / max(pixel_bytes, _RGBA_BYTES))
    if width * height > most:
        kind = f" of {pixel_bytes:.0f} bytes each" if pixel_bytes > _RGBA_BYTES else ""
        raise ImageError(
            f"an image of {width} x {height} pixels{kind} is too large "
            f"(at most {most // 1_000_000} million{' of these' if kind else ' pixels'} are accepted)"
        )
