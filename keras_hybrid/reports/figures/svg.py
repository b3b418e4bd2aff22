"""From a figure to an element of a page, or to a file of its own."""

from __future__ import annotations

import io
import re
import zlib
from html import escape

from matplotlib.figure import Figure

from keras_hybrid.reports.figures.style import INK, PAPER

_NAMESPACES = (
    'xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink"'
)


def element(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` that can stand in a page beside others.

    It has no background of its own, and its ink is the page's text colour:
    so it follows a dark page.

    Args:
        figure: The figure.
        title: What it shows, for those who cannot see it too.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    # A hundredth of a point is enough, and a third of the size.
    text = re.sub(
        r' d="[^"]*"',
        lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]),
        text,
    )
    text = re.sub(rf"\b(fill|stroke): {INK}", r"\1: currentColor", text)
    text = re.sub(
        rf"\b(fill|stroke): {PAPER}", rf"\1: var(--page, {PAPER})", text
    )
    # HTML needs no namespaces.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Matplotlib names the parts of every figure alike.
    prefix = f"f{zlib.crc32(title.encode()):08x}"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    name = escape(title)
    # Black text has no colour of its own.
    opening = f'<svg role="img" aria-label="{name}" fill="currentColor" '
    return text.replace("<svg ", opening, 1).replace(
        ">", f"><title>{name}</title>", 1
    )


def document(svg: str) -> str:
    """The element as a file of its own, black on white.

    Args:
        svg: What a `draw_...` function returned.

    Returns:
        The text of an `.svg` file.
    """
    style = f'style="color: {INK}; background: {PAPER}"'
    return svg.replace("<svg ", f"<svg {_NAMESPACES} {style} ", 1) + "\n"
