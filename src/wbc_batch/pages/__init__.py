"""What self-contained pages share: the house style, escaping, and pictures inside the page."""

import base64
import math

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from wbc_batch.schema import CLASS_COLORS

__all__ = ["THUMBNAIL_SIDE", "decimals", "environment", "percent", "picture_uri"]

#: Longest side of a thumbnail, pixels: sharp at 96 CSS pixels on a dense screen.
THUMBNAIL_SIDE = 168

_JPEG_QUALITY = 82


def environment(package: str) -> jinja2.Environment:
    """Templates of a package, with ``base.css`` to include and every value escaped.

    Filters: ``count`` (thousands apart), ``decimals(digits)`` (a dash for None and NaN), ``confidence``, and
    of fractions of 1, NaN where there are none, ``percent(digits)`` and ``limits``. ``swatch.html.j2`` has a
    macro for the colour of a class.

    Parameters
    ----------
    package : str
        Importable name of a package with a folder ``templates``.

    Returns
    -------
    jinja2.Environment
        Names that are not defined are errors.
    """
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(__name__)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "count": lambda value: f"{value:,}",
        "decimals": decimals,
        "confidence": _confidence,
        "percent": percent,
        "limits": _limits,
    }
    templates.globals["colors"] = CLASS_COLORS
    return templates


def picture_uri(image: NDArray[np.uint8]) -> str:
    """Encode a thumbnail as a data URI; images are only ever made smaller.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.

    Returns
    -------
    str
        A JPEG whose longer side is at most `THUMBNAIL_SIDE`.
    """
    height, width = image.shape[:2]
    scale = THUMBNAIL_SIDE / max(height, width)
    if scale < 1.0:
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def decimals(value: float | None, digits: int) -> str:
    """Write a number, with a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _confidence(value: float) -> str:
    """Two decimals, and never a certainty that rounding made up."""
    return "> 0.99" if value > 0.99 else f"{value:.2f}"


def percent(fraction: float, digits: int = 1) -> str:
    """Write a fraction of 1 in per cent, with a dash for NaN."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def _limits(limits: tuple[float, float]) -> str:
    lower, upper = limits
    return "" if math.isnan(lower) else f"{100 * lower:.1f}–{100 * upper:.1f}"
