"""Diagrams in the house style: as PNG and SVG files, and as SVG that takes the colours of its page."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wbc_batch.schema import CLASSES

__all__ = ["FAINT", "INK", "POINT", "draw_confusion", "inline_svg", "to_png", "to_svg"]

#: Colours of text and axes, of what stands back, and of points. On a page they become its own.
INK, FAINT, POINT = "#1b1f24", "#b9c0c7", "#2f7fb5"

_WHITE = b'<svg style="background: #ffffff" '

# Characters that no XML document may hold (XML 1.0, 2.2), though a name of a group may.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Groups are named in every script, which DejaVu has not; those of these that are installed are asked next.
_OTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Nirmala UI",
    "Arial Unicode MS",
)

_STYLE: Any = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "wbc",
    "text.parse_math": False,  # a name may be $1
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def draw_confusion(axes: Axes, counts: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Draw a confusion matrix, shaded by the share of each true class.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    counts : ndarray of int, shape (classes, labels)
        Of the cells of each class, those that were called by each label.
    labels : sequence of str
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.6 else INK
        text = f"{count:,}\n{100 * shares[row, column]:.0f} %" if count else ""
        axes.text(column, row, text, ha="center", va="center", color=ink)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def to_png(draw: Callable[[], Figure]) -> bytes:
    """Draw on white."""
    return _save(draw, "png")


def to_svg(draw: Callable[[], Figure]) -> bytes:
    """Draw on white, as a file of its own; see `inline_svg` for a place inside a page."""
    text = _save(draw, "svg").decode("utf-8")
    return _NOT_XML.sub("\ufffd", text).encode().replace(b"<svg ", _WHITE, 1)


def inline_svg(svg: bytes, name: str) -> str:
    """Make a drawing one for a place inside a page.

    Parameters
    ----------
    svg : bytes
        From `to_svg`.
    name : str
        Of letters and digits, different for each drawing of the page.

    Returns
    -------
    str
        An ``svg`` element, transparent. Its ink follows the variables of ``base.css``.
    """
    text = svg.replace(_WHITE, b"<svg ", 1).decode("utf-8")
    text = text[text.index("<svg") :]
    # Between the tags stand names that users gave, in which nothing is to be changed.
    return re.sub("<[^>]*>", lambda tag: _inline_tag(tag[0], name), text)


def _inline_tag(tag: str, name: str) -> str:
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    for colour, variable in ((INK, "--ink"), (FAINT, "--muted"), (POINT, "--link")):
        tag = tag.replace(colour, f"var({variable})")
    return tag


def _save(draw: Callable[[], Figure], kind: str) -> bytes:
    """Draw on white as PNG, and on nothing as SVG."""
    is_svg = kind == "svg"
    installed = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in installed)]
    with mpl.rc_context(_STYLE | {"font.family": fonts}), warnings.catch_warnings():
        # A box stands for such a letter; on a page the browser's own fonts have it.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        file = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if is_svg else {}
        draw().savefig(file, format=kind, dpi=150, transparent=is_svg, metadata=nothing)
    return file.getvalue()
